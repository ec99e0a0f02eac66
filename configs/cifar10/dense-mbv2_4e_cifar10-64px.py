# A source for detectors where ImageNet is not at hand: MobileNetV2 as they have it, on 64x64.
_base_ = [
    '../_base_/models/classifier_mbv2.py',
    '../_base_/methods/dense.py',
    '../_base_/datasets/cifar10_64px.py',
    '../_base_/schedules/cifar10_64px.py',
    '../_base_/runtimes/classification.py',
]
model = dict(num_classes=10, label_smoothing=0.0, dropout=0.0, backbone=_base_.mobilenet)
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
