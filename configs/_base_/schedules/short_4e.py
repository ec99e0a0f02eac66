# A third as long, for some thousand images, from a backbone that tools/publish_backbone.py wrote.
_base_ = './scratch_12e.py'
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True),
]
# For model.backbone. Other images than the backbone was trained on: everything goes on learning.
from_r18 = dict(
    frozen_stages=-1,
    norm_eval=False,
    init_cfg=dict(
        type='Pretrained', checkpoint='data/pretrained/dense-r18.pth', prefix='backbone.'
    ),
)
from_mbv2 = dict(
    from_r18,
    init_cfg=dict(
        type='Pretrained', checkpoint='data/pretrained/dense-mbv2.pth', prefix='backbone.'
    ),
)
# For custom_hooks: gates that are no longer sampled, and pruning with epochs left to mend it.
settling_budget = [dict(type='MACBudgetHook', target=0.5, settle=0.7)]
early_pruning = [dict(type='SelfGroupingHook', steps={0: [10, 20], 1: [30, 40], 2: [50, 60]})]
