# Neck and head half as wide as usual, for small data sets.
_base_ = './retinanet_r18_fpn.py'
model = dict(
    neck=dict(out_channels=128),
    bbox_head=dict(num_classes=1, in_channels=128, feat_channels=128),
)
