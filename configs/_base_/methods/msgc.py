# MSGC (arXiv 2304.06305): its networks, its budget, and how its gate nets are trained.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='MACBudgetHook', target=0.5)]
resnet = dict(type='MSGCResNet')
mobilenet = dict(type='MSGCMobileNetV2')
conv_cfg = dict(type='MSGCConv2d')
# Gate nets learn at 5x the rate of the rest; no weight decay on them or on norms.
method_paramwise = dict(
    norm_decay_mult=0.0,
    custom_keys=dict(
        maskgen=dict(lr_mult=5.0, decay_mult=0.0),
        attgen=dict(lr_mult=5.0, decay_mult=0.0),
    ),
)
