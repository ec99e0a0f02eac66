# FLGC (arXiv 1904.00346) from a trained dense detector, as tools/group.py has it: groups, and
# weights fitted to them, are the start.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='MACRatioHook')]
resnet = dict(type='FLGCResNet', groups=16, init_cfg=None, frozen_stages=0)
mobilenet = dict(type='FLGCMobileNetV2', groups=16, init_cfg=None, frozen_stages=0)
conv_cfg = dict(type='FLGCConv2d', groups=16)
separable_cfg = dict(type='SeparableConv2d', pointwise_cfg=conv_cfg)
linear_cfg = dict(type='SGCLinear')
method_paramwise = dict(
    custom_keys=dict(
        channel_logits=dict(lr_mult=1.0, decay_mult=0.0),
        filter_logits=dict(lr_mult=1.0, decay_mult=0.0),
    )
)
