# MSGC from scratch, at half the MACs.
_base_ = [
    '../_base_/models/cifar10_r18.py',
    '../_base_/methods/msgc.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.resnet)
# In so few iterations most gates stay undecided: weights need some without sampling.
custom_hooks = [dict(type='MACBudgetHook', target=0.5, settle=0.7)]
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
