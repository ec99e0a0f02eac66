_base_ = './retinanet_sgc-r18_fpn_1x_coco.py'
# Neck and head too: half of the dense detector's MACs at 800x1333.
conv_cfg = dict(type='SGCConv2d')
model = dict(
    neck=dict(conv_cfg=conv_cfg),
    bbox_head=dict(type='GroupedRetinaHead', conv_cfg=conv_cfg, pred_cfg=conv_cfg),
)
custom_hooks = [dict(type='SelfGroupingHook', steps={1: 10, 2: 20, 3: 30, 4: 40, 5: 50, 6: 51})]
