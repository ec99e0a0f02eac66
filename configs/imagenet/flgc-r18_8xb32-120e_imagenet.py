# FLGC from scratch, under the schedule of the others.
_base_ = [
    '../_base_/models/classifier_r18.py',
    '../_base_/methods/flgc.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_cosine.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.resnet)
# The logits' rate is the weights' here, which is ten times that of a detector's.
# The rate of the logits is that of the weights, ten times what it is in a detector.
optim_wrapper = dict(
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(channel_logits=dict(decay_mult=0.0), filter_logits=dict(decay_mult=0.0)),
    ),
)
