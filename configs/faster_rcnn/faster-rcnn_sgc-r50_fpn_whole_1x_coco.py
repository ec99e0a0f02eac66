_base_ = './faster-rcnn_sgc-r50_fpn_1x_coco.py'
# Neck and head too: half of the dense detector's MACs at 800x1333.
conv_cfg = dict(type='SGCConv2d')
model = dict(
    neck=dict(conv_cfg=conv_cfg),
    rpn_head=dict(type='GroupedRPNHead', conv_cfg=conv_cfg),
    roi_head=dict(
        bbox_head=dict(type='GroupedShared2FCBBoxHead', linear_cfg=dict(type='SGCLinear'))
    ),
)
custom_hooks = [dict(type='SelfGroupingHook', steps={1: 10, 2: 20, 3: 30, 4: 40, 5: 50, 6: 53})]
