_base_ = [
    '../_base_/models/faster-rcnn_mbv2_fpn.py',
    '../_base_/methods/dense.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
