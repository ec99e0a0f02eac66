# MSGC (arXiv 2304.06305) from a trained dense detector, as tools/group.py has it: gates begin open,
# are never sampled, and meet the budget early.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [
    dict(
        type='MACBudgetHook',
        target=0.5,
        scope='detector',
        stop=0.4,
        settle=0.0,
        slack=0.02,
    ),
]
resnet = dict(type='MSGCResNet', over_batch=False, init_cfg=None, frozen_stages=0)
mobilenet = dict(type='MSGCMobileNetV2', over_batch=False, init_cfg=None, frozen_stages=0)
conv_cfg = dict(type='MSGCConv2d')
separable_cfg = dict(type='SeparableConv2d', pointwise_cfg=conv_cfg)
linear_cfg = dict(type='SGCLinear')
method_paramwise = dict(
    custom_keys=dict(
        maskgen=dict(lr_mult=5.0, decay_mult=0.0), attgen=dict(lr_mult=5.0, decay_mult=0.0)
    )
)
