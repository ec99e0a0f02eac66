_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/methods/dgc.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(backbone=_base_.resnet)
optim_wrapper = dict(optimizer=dict(lr=0.01), paramwise_cfg=_base_.method_paramwise)
