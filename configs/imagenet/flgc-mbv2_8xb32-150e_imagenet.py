# FLGC from scratch, under the schedule of the others.
_base_ = [
    '../_base_/models/classifier_mbv2.py',
    '../_base_/methods/flgc.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_cosine.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.mobilenet)
# The rate of the logits is that of the weights, ten times what it is in a detector.
optim_wrapper = dict(
    optimizer=dict(lr=0.05, weight_decay=4e-5),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(channel_logits=dict(decay_mult=0.0), filter_logits=dict(decay_mult=0.0)),
    ),
)
max_epochs = 150
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True)]
