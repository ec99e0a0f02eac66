# A source for detectors where ImageNet is not at hand: ResNet18 as they have it, on 64x64 pixels.
_base_ = [
    '../_base_/models/classifier_r18.py',
    '../_base_/methods/dense.py',
    '../_base_/datasets/cifar10_64px.py',
    '../_base_/schedules/cifar10_64px.py',
    '../_base_/runtimes/classification.py',
]
model = dict(num_classes=10, label_smoothing=0.0, backbone=_base_.resnet)
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
