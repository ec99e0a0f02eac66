# MobileNetV2 as a classifier of ImageNet's 1000 classes; images come in RGB.
model = dict(
    type='ImageClassifier',
    num_classes=1000,
    label_smoothing=0.1,
    dropout=0.2,
    data_preprocessor=dict(
        type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    backbone=dict(type='TrimmedMobileNetV2', out_indices=(7,), norm_eval=False),
)
# For recipes that begin with dense weights: put into the model.
dense = (
    'https://download.openmmlab.com/mmclassification/v0/mobilenet_v2/'
    'mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth'
)
from_dense = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=dense, prefix='backbone.')),
    fc_init_cfg=dict(type='Pretrained', checkpoint=dense, prefix='head.fc.'),
)
