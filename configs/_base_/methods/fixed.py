# Plain group convolution in 4 groups, the baseline.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='MACRatioHook')]
resnet = dict(type='FixedGroupResNet', groups=4)
conv_cfg = dict(type='FixedGroupConv2d', groups=4)
method_paramwise = dict(norm_decay_mult=0.0)
