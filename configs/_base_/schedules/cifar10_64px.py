# Enough epochs of enlarged images to make a source for detectors.
_base_ = './cifar10.py'
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=195),
    dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True),
]
