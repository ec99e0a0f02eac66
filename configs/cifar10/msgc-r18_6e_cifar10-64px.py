# A source for detectors where ImageNet is not at hand: ResNet18 as they have it, on 64x64 pixels.
_base_ = [
    '../_base_/models/classifier_r18.py',
    '../_base_/methods/msgc.py',
    '../_base_/datasets/cifar10_64px.py',
    '../_base_/schedules/cifar10.py',
    '../_base_/runtimes/classification.py',
]
model = dict(num_classes=10, label_smoothing=0.0, backbone=_base_.resnet)
max_epochs = 6
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=195),
    dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True),
]
# In so few iterations most gates stay undecided: weights need some without sampling.
custom_hooks = [dict(type='MACBudgetHook', target=0.5, settle=0.7)]
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
