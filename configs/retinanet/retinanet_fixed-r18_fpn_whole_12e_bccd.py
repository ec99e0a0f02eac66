_base_ = './retinanet_fixed-r18_fpn_12e_bccd.py'
model = dict(
    neck=dict(conv_cfg=_base_.conv_cfg),
    bbox_head=dict(type='GroupedRetinaHead', conv_cfg=_base_.conv_cfg, pred_cfg=_base_.conv_cfg),
)
