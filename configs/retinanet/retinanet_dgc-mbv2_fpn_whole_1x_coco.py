_base_ = './retinanet_dgc-mbv2_fpn_1x_coco.py'
# Neck and head too: half of the dense detector's MACs at 800x1333.
conv_cfg = dict(
    type='SeparableConv2d', pointwise_cfg=dict(type='DGCConv2d', gate_factor=0.429, pre_norm=False)
)
model = dict(
    backbone=dict(gate_factor=0.429),
    neck=dict(conv_cfg=conv_cfg),
    bbox_head=dict(type='GroupedRetinaHead', conv_cfg=conv_cfg, pred_cfg=conv_cfg),
)
