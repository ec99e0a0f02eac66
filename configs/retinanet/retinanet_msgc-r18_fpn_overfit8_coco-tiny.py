_base_ = [
    '../_base_/models/retinanet_r18_fpn.py',
    '../_base_/methods/msgc.py',
    '../_base_/datasets/coco_tiny_first8.py',
    '../_base_/schedules/overfit.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(backbone=dict(**_base_.resnet, **_base_.from_scratch))
custom_hooks = _base_.short_budget
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
