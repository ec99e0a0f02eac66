# From a backbone that was pretrained with FLGC, instead of dense.
_base_ = './retinanet_flgc-mbv2_fpn_4e_coco-person.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='data/pretrained/flgc-mbv2.pth')))
# Channels stay in the groups in which the weights were trained.
held = dict(lr_mult=0.0, decay_mult=0.0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(channel_logits=held, filter_logits=held)))
