# A gated source for detectors, from the dense one: at a lower rate, as in the paper.
_base_ = [
    '../_base_/models/classifier_r18.py',
    '../_base_/methods/msgc.py',
    '../_base_/datasets/cifar10_64px.py',
    '../_base_/schedules/cifar10_64px.py',
    '../_base_/runtimes/classification.py',
]
load_from = 'work_dirs/dense-r18_4e_cifar10-64px/epoch_4.pth'
model = dict(num_classes=10, label_smoothing=0.0, backbone=_base_.resnet)
# In so few iterations most gates stay undecided: weights need some without sampling.
custom_hooks = [dict(type='MACBudgetHook', target=0.5, settle=0.7)]
gate_net = dict(lr_mult=2.5, decay_mult=0.0)
optim_wrapper = dict(
    optimizer=dict(lr=0.03),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(maskgen=gate_net, attgen=gate_net)),
)
