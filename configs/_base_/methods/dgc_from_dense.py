# DGC (arXiv 2007.04242) from a trained dense detector, as tools/group.py has it: no norms before
# the convolutions, channels dropped within the first half.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='DGCScheduleHook', start=0.0, stop=0.5)]
resnet = dict(type='DGCResNet', pre_norm=False, init_cfg=None, frozen_stages=0)
mobilenet = dict(type='DGCMobileNetV2', pre_norm=False, init_cfg=None, frozen_stages=0)
conv_cfg = dict(type='DGCConv2d', pre_norm=False)
separable_cfg = dict(type='SeparableConv2d', pointwise_cfg=conv_cfg)
linear_cfg = dict(type='SGCLinear')
method_paramwise = dict(custom_keys=dict(saliency=dict(lr_mult=1.0, decay_mult=0.0)))
