_base_ = [
    '../_base_/models/faster-rcnn_msgc-r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
optim_wrapper = dict(paramwise_cfg=_base_.gate_paramwise_cfg)
