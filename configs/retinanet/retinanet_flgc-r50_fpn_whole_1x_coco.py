_base_ = './retinanet_flgc-r50_fpn_1x_coco.py'
# Neck and head too: half of the dense detector's MACs at 800x1333.
conv_cfg = dict(type='FLGCConv2d', groups=2)
pred_cfg = dict(type='FLGCConv2d', groups=3)
model = dict(
    backbone=dict(groups=2),
    neck=dict(conv_cfg=conv_cfg),
    bbox_head=dict(type='GroupedRetinaHead', conv_cfg=conv_cfg, pred_cfg=pred_cfg),
)
