# SG-CNN's fine-tuning: 90 epochs, the learning rate divided by 10 after 30 and 60.
_base_ = './imagenet_cosine.py'
max_epochs = 90
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(type='MultiStepLR', milestones=[30, 60], gamma=0.1)]
optim_wrapper = dict(optimizer=dict(lr=0.01))
