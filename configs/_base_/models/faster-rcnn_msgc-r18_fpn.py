_base_ = ['./faster-rcnn_r18_fpn.py', '../methods/msgc.py']
model = dict(backbone=dict(type='MSGCResNet'))
