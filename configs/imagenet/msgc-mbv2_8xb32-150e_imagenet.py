# MSGC from dense weights (arXiv 2304.06305, section 4.1): gate nets at 0.075, the rest at 0.015.
_base_ = [
    '../_base_/models/classifier_mbv2.py',
    '../_base_/methods/msgc_pretraining.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_cosine_150e.py',
    '../_base_/runtimes/classification.py',
]
model = _base_.from_dense
model.backbone.update(_base_.mobilenet)
custom_hooks = [dict(type='MACBudgetHook', target=0.65)]
optim_wrapper = dict(optimizer=dict(lr=0.015), paramwise_cfg=_base_.method_paramwise)
