# SG-CNN's global scheme, from dense weights: pruned by 10 % six times, then fine-tuned.
_base_ = [
    '../_base_/models/classifier_r50.py',
    '../_base_/methods/sgc.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_steps.py',
    '../_base_/runtimes/classification.py',
]
model = _base_.from_dense
model.backbone.update(_base_.resnet)
custom_hooks = [dict(type='SelfGroupingHook', steps={0: [10, 20, 30, 40, 50, 60]})]
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
