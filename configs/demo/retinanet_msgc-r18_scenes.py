# A RetinaNet small enough for two CPU cores: half the backbone's width, a light neck and head.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/scenes.py',
    '../_base_/schedules/scratch_12e.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/methods/msgc.py',
]
max_epochs = 10
model = dict(
    backbone=dict(
        type='MSGCResNet',
        depth=18,
        base_channels=32,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4),
    bbox_head=dict(
        num_classes=6,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(
            octave_base_scale=3, scales_per_octave=2, ratios=[1.0], strides=[8, 16, 32, 64]
        ),
    ),
)
custom_hooks = _base_.short_budget
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=_base_.method_paramwise)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(max_keep_ckpts=1))
