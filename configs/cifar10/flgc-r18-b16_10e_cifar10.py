# FLGC in 2 groups: about half the MACs.
_base_ = [
    '../_base_/models/cifar10_r18.py',
    '../_base_/methods/flgc.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar10.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=dict(_base_.resnet, groups=2))
# The rate of the logits is that of the weights, ten times what it is in a detector.
optim_wrapper = dict(
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(channel_logits=dict(decay_mult=0.0), filter_logits=dict(decay_mult=0.0)),
    ),
)
