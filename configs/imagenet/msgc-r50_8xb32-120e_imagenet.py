# MSGC from dense weights (arXiv 2304.06305, section 4.1): gate nets at 0.075, the rest at 0.015.
_base_ = [
    '../_base_/models/classifier_r50.py',
    '../_base_/methods/msgc_pretraining.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_cosine.py',
    '../_base_/runtimes/classification.py',
]
model = _base_.from_dense
model.backbone.update(_base_.resnet)
custom_hooks = [dict(type='MACBudgetHook', target=0.457)]
optim_wrapper = dict(optimizer=dict(lr=0.015), paramwise_cfg=_base_.method_paramwise)
