# MSGC from scratch; the projecting convolutions alone are grouped, hence the target.
_base_ = [
    '../_base_/models/cifar10_mbv2.py',
    '../_base_/methods/msgc.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.mobilenet)
custom_hooks = [dict(type='MACBudgetHook', target=0.65, settle=0.7)]
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
