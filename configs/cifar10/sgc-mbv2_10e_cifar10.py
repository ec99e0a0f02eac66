# SGC, local and global: pruned by 10 % five times, to half the connections.
_base_ = [
    '../_base_/models/cifar10_mbv2.py',
    '../_base_/methods/sgc.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.mobilenet)
custom_hooks = [dict(type='SelfGroupingHook', steps={1: 10, 2: 20, 3: 30, 4: 40, 5: 50})]
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
