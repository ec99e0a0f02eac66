_base_ = ['./retinanet_r18_fpn_12e_bccd.py', '../_base_/methods/msgc.py']
model = dict(backbone=dict(type='MSGCResNet'))
optim_wrapper = dict(paramwise_cfg=_base_.gate_paramwise_cfg)
