_base_ = './faster-rcnn_dgc-mbv2_fpn_1x_coco.py'
# Neck and head too: half of the dense detector's MACs at 800x1333.
conv_cfg = dict(
    type='SeparableConv2d', pointwise_cfg=dict(type='DGCConv2d', gate_factor=0.31, pre_norm=False)
)
model = dict(
    backbone=dict(gate_factor=0.31),
    neck=dict(conv_cfg=conv_cfg),
    rpn_head=dict(type='GroupedRPNHead', conv_cfg=conv_cfg),
)
