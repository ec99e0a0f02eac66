_base_ = [
    '../_base_/models/faster-rcnn_r18_fpn.py',
    '../_base_/methods/dense.py',
    '../_base_/datasets/bccd.py',
    '../_base_/schedules/scratch_12e.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(
    backbone=dict(**_base_.resnet, **_base_.from_scratch),
    roi_head=dict(bbox_head=dict(num_classes=3)),
    **_base_.few_rois,
)
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
