# ResNet18 for 32x32 images, a quarter as wide as usual.
_base_ = './classifier_r18.py'
model = dict(
    num_classes=10,
    small_images=True,
    label_smoothing=0.0,
    data_preprocessor=dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7]),
    backbone=dict(base_channels=16),
)
