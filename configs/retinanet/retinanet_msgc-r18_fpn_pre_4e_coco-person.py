# From a gated backbone, at its ratio from the first iteration on. It comes from other images than
# COCO's: nothing is frozen, all of it learns at the full rate.
_base_ = './retinanet_msgc-r18_fpn_4e_coco-person.py'
model = dict(backbone=dict(init_cfg=dict(checkpoint='data/pretrained/msgc-r18.pth')))
custom_hooks = [dict(type='MACBudgetHook', target=0.5, start=0.0, stop=0.0, settle=0.7)]
