# A gated backbone that tools/publish_backbone.py wrote. Its gates are at their ratio already: the
# budget holds them there from the first iteration, and they learn at half of the head's rate, the
# backbone at a tenth. (Of custom_keys the longest that fits counts, hence the dots.)
_base_ = './msgc.py'
from_pretrained = dict(
    frozen_stages=1,
    norm_eval=True,
    init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/msgc-r18.pth', prefix='backbone.'),
)
custom_hooks = [dict(type='MACBudgetHook', target=0.5, start=0.0, stop=0.0)]
gate_net = dict(lr_mult=0.5, decay_mult=0.0)
method_paramwise = dict(
    custom_keys={
        'backbone': dict(lr_mult=0.1),
        'maskgen1.': gate_net,
        'maskgen2.': gate_net,
        'maskgen3.': gate_net,
        'attgen1.': gate_net,
        'attgen2.': gate_net,
        'attgen3.': gate_net,
    }
)
