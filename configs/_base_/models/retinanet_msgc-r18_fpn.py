_base_ = ['./retinanet_r18_fpn.py', '../methods/msgc.py']
model = dict(backbone=dict(type='MSGCResNet'))
