_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/methods/msgc_from_dense.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
# Made by tools/group.py --method msgc --macs 0.5 --teacher DENSE.pth (docs/grouping.md).
load_from = 'data/grouped/faster-rcnn_msgc-r50/grouped.pth'
model = dict(
    backbone=_base_.resnet,
    neck=dict(conv_cfg=_base_.conv_cfg),
    rpn_head=dict(type='GroupedRPNHead', conv_cfg=_base_.conv_cfg),
    roi_head=dict(bbox_head=dict(type='GroupedShared2FCBBoxHead', linear_cfg=_base_.linear_cfg)),
)
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='DistillationHook',
        config='{{ fileDirname }}/faster-rcnn_r50_fpn_1x_coco.py',
        checkpoint='data/dense/faster-rcnn_r50_fpn_1x_coco.pth',
        start=0.0,
        stop=0.5,
    ),
]
