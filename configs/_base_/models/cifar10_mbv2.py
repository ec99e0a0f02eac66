# MobileNetV2 for 32x32 images.
_base_ = './classifier_mbv2.py'
model = dict(
    num_classes=10,
    small_images=True,
    label_smoothing=0.0,
    dropout=0.0,
    data_preprocessor=dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7]),
)
