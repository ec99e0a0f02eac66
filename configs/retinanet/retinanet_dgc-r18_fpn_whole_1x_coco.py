_base_ = './retinanet_dgc-r18_fpn_1x_coco.py'
# Neck and head too: half of the dense detector's MACs at 800x1333.
conv_cfg = dict(type='DGCConv2d', gate_factor=0.492, pre_norm=False)
model = dict(
    backbone=dict(gate_factor=0.492),
    neck=dict(conv_cfg=conv_cfg),
    bbox_head=dict(type='GroupedRetinaHead', conv_cfg=conv_cfg, pred_cfg=conv_cfg),
)
