# DGC from scratch, at about half the MACs.
_base_ = [
    '../_base_/models/cifar10_mbv2.py',
    '../_base_/methods/dgc.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.mobilenet)
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
