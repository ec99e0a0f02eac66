# The dense network under the schedule of the others.
_base_ = [
    '../_base_/models/classifier_mbv2.py',
    '../_base_/methods/dense.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_cosine_150e.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.mobilenet)
optim_wrapper = dict(
    optimizer=dict(lr=0.05, weight_decay=4e-5), paramwise_cfg=_base_.method_paramwise
)
