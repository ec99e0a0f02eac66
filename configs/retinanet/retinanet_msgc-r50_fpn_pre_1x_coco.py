# The recipe for MS COCO with an ImageNet-pretrained MSGC backbone, whose ratio was 0.457.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/methods/msgc_pretrained.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
pretrained = dict(checkpoint='data/pretrained/msgc-r50.pth', prefix='backbone.')
model = dict(backbone=dict(_base_.resnet, init_cfg=pretrained))
custom_hooks = [dict(type='MACBudgetHook', target=0.457, start=0.0, stop=0.0)]
optim_wrapper = dict(optimizer=dict(lr=0.01), paramwise_cfg=_base_.method_paramwise)
