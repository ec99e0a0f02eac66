# A short schedule from scratch for CIFAR-10: SGD, a warm-up of half an epoch, cosine to zero.
max_epochs = 10
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=195),
    dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
)
auto_scale_lr = dict(enable=False, base_batch_size=128)
