_base_ = './faster-rcnn_flgc-r18_fpn_1x_coco.py'
# Neck and head too: half of the dense detector's MACs at 800x1333.
conv_cfg = dict(type='FLGCConv2d', groups=2)
rpn_cfg = dict(type='FLGCConv2d', groups=3)
model = dict(
    backbone=dict(groups=2),
    neck=dict(conv_cfg=conv_cfg),
    rpn_head=dict(type='GroupedRPNHead', conv_cfg=rpn_cfg),
)
