# As long as MSGC's paper trains MobileNetV2.
_base_ = './imagenet_cosine.py'
max_epochs = 150
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True)]
