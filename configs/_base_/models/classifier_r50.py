_base_ = './classifier_r18.py'
model = dict(backbone=dict(depth=50))
from_dense = dict(
    backbone=dict(init_cfg=dict(checkpoint='torchvision://resnet50')),
    fc_init_cfg=dict(checkpoint='torchvision://resnet50'),
)
