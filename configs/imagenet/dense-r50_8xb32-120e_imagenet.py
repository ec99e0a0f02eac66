# The dense network under the schedule of the others.
_base_ = [
    '../_base_/models/classifier_r50.py',
    '../_base_/methods/dense.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_cosine.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.resnet)
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
