# MSGC (arXiv 2304.06305): its registered names, its budget, and how its gate nets are trained.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='MACBudgetHook', target=0.5)]
# Gate nets learn at 5x the rate of the rest; no weight decay on them or on norms.
gate_paramwise_cfg = dict(
    norm_decay_mult=0.0,
    custom_keys=dict(
        maskgen=dict(lr_mult=5.0, decay_mult=0.0),
        attgen=dict(lr_mult=5.0, decay_mult=0.0),
    ),
)
