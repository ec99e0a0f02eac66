# No grouping: MMDetection's own networks, their MACs logged like those of the others.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='MACRatioHook')]
resnet = dict(type='ResNet')
mobilenet = dict(type='TrimmedMobileNetV2')
method_paramwise = dict(norm_decay_mult=0.0)
