# MSGC in a classifier: weight decay on convolutions only, as published.
_base_ = './msgc.py'
method_paramwise = dict(bias_decay_mult=0.0, custom_keys=dict(fc=dict(decay_mult=0.0)))
