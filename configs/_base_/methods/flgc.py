# FLGC (arXiv 1904.00346): its networks, and how the assignments are trained.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='MACRatioHook')]
resnet = dict(type='FLGCResNet', groups=4)
mobilenet = dict(type='FLGCMobileNetV2', groups=4)
conv_cfg = dict(type='FLGCConv2d', groups=4)
method_paramwise = dict(
    norm_decay_mult=0.0,
    custom_keys=dict(
        channel_logits=dict(lr_mult=10.0, decay_mult=0.0),
        filter_logits=dict(lr_mult=10.0, decay_mult=0.0),
    ),
)
