_base_ = [
    '../_base_/models/faster-rcnn_msgc-r18_fpn.py',
    '../_base_/datasets/coco_tiny_first8.py',
    '../_base_/schedules/scratch_12e.py',
    'mmdet::_base_/default_runtime.py',
]
max_epochs = 4
model = dict(backbone=_base_.from_scratch)
custom_hooks = _base_.short_budget
optim_wrapper = dict(paramwise_cfg=_base_.gate_paramwise_cfg)
train_cfg = dict(max_epochs=max_epochs, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True),
]
