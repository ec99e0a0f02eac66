# FLGC from scratch, under the schedule of the others.
_base_ = [
    '../_base_/models/classifier_r18.py',
    '../_base_/methods/flgc_pretraining.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_cosine.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.resnet)
# The logits' rate is the weights' here, which is ten times that of a detector's.
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
