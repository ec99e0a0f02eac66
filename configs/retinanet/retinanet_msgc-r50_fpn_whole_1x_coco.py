_base_ = './retinanet_msgc-r50_fpn_1x_coco.py'
# Neck and head too: half of the dense detector's MACs at 800x1333.
conv_cfg = dict(type='MSGCConv2d')
model = dict(
    neck=dict(conv_cfg=conv_cfg),
    bbox_head=dict(type='GroupedRetinaHead', conv_cfg=conv_cfg, pred_cfg=conv_cfg),
)
custom_hooks = [dict(type='MACBudgetHook', target=0.5, scope='detector')]
