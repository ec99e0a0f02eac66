# The dense network under the schedule of the others.
_base_ = [
    '../_base_/models/classifier_mbv2.py',
    '../_base_/methods/dense.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_cosine.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.mobilenet)
optim_wrapper = dict(
    optimizer=dict(lr=0.05, weight_decay=4e-5), paramwise_cfg=_base_.method_paramwise
)
max_epochs = 150
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True)]
