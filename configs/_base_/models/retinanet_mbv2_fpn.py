_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
# Neck and head in proportion to the backbone: half as wide as usual and depthwise separable; the
# towers' norms, without which so many thin layers don't train, are by image and level.
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
    bbox_head=dict(
        type='GroupedRetinaHead',
        in_channels=width,
        feat_channels=width,
        conv_cfg=separable,
        pred_cfg=separable,
        norm_cfg=dict(type='GN', num_groups=32),
    ),
)
