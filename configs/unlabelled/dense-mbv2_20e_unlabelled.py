# For tools/group.py: what it makes of this learns from the dense weights on images without labels.
_base_ = [
    '../_base_/models/classifier_mbv2.py',
    '../_base_/methods/dense.py',
    '../_base_/datasets/unlabelled.py',
    '../_base_/schedules/unlabelled_20e.py',
    '../_base_/runtimes/classification.py',
]
# Norms keep ImageNet's statistics: those of the images at hand alone cost 6 points of top-1.
model = dict(backbone=dict(**_base_.mobilenet, norm_eval=True), label_smoothing=0.0, dropout=0.0)
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
