_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../methods/msgc.py']
model = dict(backbone=dict(type='MSGCResNet'))
