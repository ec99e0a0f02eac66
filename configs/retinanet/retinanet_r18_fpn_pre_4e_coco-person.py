_base_ = [
    '../_base_/models/retinanet_r18_fpn128.py',
    '../_base_/methods/dense_pretrained.py',
    '../_base_/datasets/coco_person.py',
    '../_base_/schedules/short_4e.py',
    'mmdet::_base_/default_runtime.py',
]
model = dict(backbone=dict(**_base_.resnet, **_base_.from_pretrained))
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
