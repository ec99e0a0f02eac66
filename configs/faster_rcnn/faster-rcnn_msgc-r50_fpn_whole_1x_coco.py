_base_ = './faster-rcnn_msgc-r50_fpn_1x_coco.py'
# Neck and head too: half of the dense detector's MACs at 800x1333.
conv_cfg = dict(type='MSGCConv2d')
model = dict(
    neck=dict(conv_cfg=conv_cfg),
    rpn_head=dict(type='GroupedRPNHead', conv_cfg=conv_cfg),
)
custom_hooks = [dict(type='MACBudgetHook', target=0.5, scope='detector')]
