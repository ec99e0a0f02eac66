# ResNet18 as a classifier of ImageNet's 1000 classes; images come in RGB.
model = dict(
    type='ImageClassifier',
    num_classes=1000,
    label_smoothing=0.1,
    data_preprocessor=dict(
        type='ImgDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    ),
    backbone=dict(type='ResNet', depth=18, out_indices=(3,), norm_eval=False),
)
# For recipes that begin with dense weights: put into the model.
from_dense = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    fc_init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18', prefix='fc.'),
)
