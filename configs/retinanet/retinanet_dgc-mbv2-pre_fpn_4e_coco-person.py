# From a backbone that was pretrained with DGC, instead of dense.
_base_ = './retinanet_dgc-mbv2_fpn_4e_coco-person.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='data/pretrained/dgc-mbv2.pth')))
# No schedule: layers drop as many channels as when pretraining ended.
custom_hooks = [dict(type='MACRatioHook')]
