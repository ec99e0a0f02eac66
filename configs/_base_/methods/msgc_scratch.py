# MSGC in a classifier that begins at a learning rate of 0.1: gate nets at 0.075, as published. (At
# five times 0.1 they saturate within some epochs: the ratio then stands still beside its target.)
_base_ = './msgc.py'
method_paramwise = dict(custom_keys=dict(maskgen=dict(lr_mult=0.75), attgen=dict(lr_mult=0.75)))
