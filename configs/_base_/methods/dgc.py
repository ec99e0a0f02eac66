# DGC (arXiv 2007.04242): its networks, its schedule, and how its saliency nets are trained.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='DGCScheduleHook')]
resnet = dict(type='DGCResNet', gate_factor=0.45)
mobilenet = dict(type='DGCMobileNetV2', gate_factor=0.45)
# A neck's and a head's layers have no norms of their own, and a tower is shared over levels.
conv_cfg = dict(type='DGCConv2d', gate_factor=0.45, pre_norm=False)
method_paramwise = dict(norm_decay_mult=0.0, custom_keys=dict(saliency=dict(decay_mult=0.0)))
