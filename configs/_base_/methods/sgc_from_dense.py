# SGC (SG-CNN, 2020) from a trained dense detector, as tools/group.py has it: clusters, and
# weights fitted to them, are the start.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='MACRatioHook')]
resnet = dict(type='SGCResNet', init_cfg=None, frozen_stages=0)
mobilenet = dict(type='SGCMobileNetV2', init_cfg=None, frozen_stages=0)
conv_cfg = dict(type='SGCConv2d')
separable_cfg = dict(type='SeparableConv2d', pointwise_cfg=conv_cfg)
linear_cfg = dict(type='SGCLinear')
method_paramwise = dict()
