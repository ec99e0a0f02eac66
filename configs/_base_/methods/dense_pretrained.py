# A dense backbone that tools/publish_backbone.py wrote: it learns at a tenth of the head's rate.
_base_ = './dense.py'
from_pretrained = dict(
    frozen_stages=1,
    norm_eval=True,
    init_cfg=dict(
        type='Pretrained', checkpoint='data/pretrained/dense-r18.pth', prefix='backbone.'
    ),
)
method_paramwise = dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))
