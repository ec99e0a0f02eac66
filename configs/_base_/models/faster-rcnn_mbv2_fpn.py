_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
# Neck and heads in proportion to the backbone: half as wide as usual and depthwise separable, a
# quarter as wide behind the RoI features.
width = 128
separable = dict(type='SeparableConv2d')
model = dict(
    backbone=dict(
        _delete_=True,
        type='TrimmedMobileNetV2',
        out_indices=(1, 2, 4, 6),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2'),
    ),
    neck=dict(in_channels=[24, 32, 96, 320], out_channels=width, conv_cfg=separable),
    rpn_head=dict(
        type='GroupedRPNHead', in_channels=width, feat_channels=width, conv_cfg=separable
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=256),
    ),
)
