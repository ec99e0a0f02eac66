# SGC (SG-CNN, Neural Networks 132, 2020): its networks and its pruning, local and global: by 10 %
# before each of the first epochs, which fine-tune in between.
custom_imports = dict(imports=['mmdet_groupconv'], allow_failed_imports=False)
custom_hooks = [dict(type='SelfGroupingHook', steps={1: 10, 2: 20, 3: 30, 4: 40, 5: 50, 6: 60})]
resnet = dict(type='SGCResNet')
mobilenet = dict(type='SGCMobileNetV2')
conv_cfg = dict(type='SGCConv2d')
method_paramwise = dict(norm_decay_mult=0.0)
