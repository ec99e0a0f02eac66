_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/methods/dgc_from_dense.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
# The share of channels that leaves half of the whole detector's MACs.
gate_factor = 0.491
conv_cfg = dict(**_base_.conv_cfg, gate_factor=gate_factor)
# Made by tools/group.py --method dgc --macs 0.5 --teacher DENSE.pth (docs/grouping.md).
load_from = 'data/grouped/retinanet_dgc-r50/grouped.pth'
model = dict(
    backbone=dict(**_base_.resnet, gate_factor=gate_factor),
    neck=dict(conv_cfg=conv_cfg),
    bbox_head=dict(type='GroupedRetinaHead', conv_cfg=conv_cfg, pred_cfg=conv_cfg),
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
