# From a backbone that was pretrained with FLGC, instead of dense.
_base_ = './retinanet_flgc-mbv2_fpn_4e_coco-person.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='data/pretrained/flgc-mbv2.pth')))
