_base_ = [
    '../_base_/models/faster-rcnn_msgc-r50_fpn.py',
    '../_base_/datasets/coco_tiny.py',
    '../_base_/schedules/scratch_12e.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(backbone=_base_.from_scratch)
optim_wrapper = dict(paramwise_cfg=_base_.gate_paramwise_cfg)
