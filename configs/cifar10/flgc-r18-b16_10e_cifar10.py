# FLGC in 2 groups: about half the MACs.
_base_ = [
    '../_base_/models/cifar10_r18.py',
    '../_base_/methods/flgc_pretraining.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=dict(_base_.resnet, groups=2))
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
