# The dense network, which the grouped ones are set beside.
_base_ = [
    '../_base_/models/cifar10_r18.py',
    '../_base_/methods/dense.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.resnet)
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
