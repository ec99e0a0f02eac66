_base_ = [
    '../_base_/models/retinanet_mbv2_fpn.py',
    '../_base_/methods/msgc.py',
    '../_base_/datasets/coco_person.py',
    '../_base_/schedules/short_4e.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(backbone=dict(**_base_.mobilenet, **_base_.from_mbv2), bbox_head=dict(num_classes=1))
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
custom_hooks = _base_.settling_budget
