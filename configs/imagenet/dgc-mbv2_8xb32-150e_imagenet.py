# DGC from scratch (arXiv 2007.04242, section 4).
_base_ = [
    '../_base_/models/classifier_mbv2.py',
    '../_base_/methods/dgc.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_cosine_150e.py',
    '../_base_/runtimes/classification.py',
]
model = dict(backbone=_base_.mobilenet)
optim_wrapper = dict(
    optimizer=dict(lr=0.05, weight_decay=4e-5), paramwise_cfg=_base_.method_paramwise
)
