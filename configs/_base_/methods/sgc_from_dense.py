# SGC (SG-CNN, 2020) from a trained dense detector, as tools/group.py has it: clusters chosen from
# the weights, what is pruned shrunk within the first two epochs of twelve.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='GroupShrinkHook', stop=0.15)]
resnet = dict(type='SGCResNet', init_cfg=None, frozen_stages=0)
mobilenet = dict(type='SGCMobileNetV2', init_cfg=None, frozen_stages=0)
conv_cfg = dict(type='SGCConv2d')
separable_cfg = dict(type='SeparableConv2d', pointwise_cfg=conv_cfg)
linear_cfg = dict(type='SGCLinear')
method_paramwise = dict()
