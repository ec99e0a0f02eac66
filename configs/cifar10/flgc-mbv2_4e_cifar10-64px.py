# A source for detectors that is in groups already, from the dense one.
_base_ = [
    '../_base_/models/classifier_mbv2.py',
    '../_base_/methods/flgc_pretraining.py',
    '../_base_/datasets/cifar10_64px.py',
    '../_base_/schedules/cifar10_64px.py',
    '../_base_/runtimes/classification.py',
]
load_from = 'work_dirs/dense-mbv2_4e_cifar10-64px/epoch_4.pth'
model = dict(num_classes=10, label_smoothing=0.0, dropout=0.0, backbone=_base_.mobilenet)
optim_wrapper = dict(paramwise_cfg=_base_.method_paramwise)
