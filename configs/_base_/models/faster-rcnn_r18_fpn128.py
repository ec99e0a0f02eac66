# Neck and heads half as wide as usual, a quarter behind the RoI features, for small data sets.
_base_ = './faster-rcnn_r18_fpn.py'
model = dict(
    neck=dict(out_channels=128),
    rpn_head=dict(in_channels=128, feat_channels=128),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128, fc_out_channels=256),
    ),
)
