_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/methods/msgc_from_dense.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
# Made by tools/group.py --method msgc --macs 0.5 --teacher DENSE.pth (docs/grouping.md).
load_from = 'data/grouped/retinanet_msgc-r50/grouped.pth'
model = dict(
    backbone=_base_.resnet,
    neck=dict(conv_cfg=_base_.conv_cfg),
    bbox_head=dict(type='GroupedRetinaHead', conv_cfg=_base_.conv_cfg, pred_cfg=_base_.conv_cfg),
)
optim_wrapper = dict(optimizer=dict(lr=0.01), paramwise_cfg=_base_.method_paramwise)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='DistillationHook',
        config='{{ fileDirname }}/retinanet_r50_fpn_1x_coco.py',
        checkpoint='data/dense/retinanet_r50_fpn_1x_coco.pth',
        start=0.0,
        stop=0.5,
    ),
]
