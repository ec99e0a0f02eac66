# FLGC in a classifier: the rate of its logits is that of the weights, ten times what it is in a
# detector.
_base_ = './flgc.py'
method_paramwise = dict(
    custom_keys=dict(channel_logits=dict(lr_mult=1.0), filter_logits=dict(lr_mult=1.0))
)
