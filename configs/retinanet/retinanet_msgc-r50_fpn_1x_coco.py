_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    '../_base_/methods/msgc.py',
]
model = dict(backbone=dict(type='MSGCResNet'))
optim_wrapper = dict(paramwise_cfg=_base_.gate_paramwise_cfg)
