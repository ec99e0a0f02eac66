# From scratch on a small data set: AdamW, a short warm-up, cosine; batches of 4.
max_epochs = 12
# For model.backbone: nothing to load, so nothing frozen.
from_scratch = dict(frozen_stages=-1, norm_eval=False, init_cfg=None)
# For Faster R-CNN's model: on small images a quarter of its usual RoIs covers all that is there.
few_rois = dict(
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=1000, max_per_img=500),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
# For runs of a few hundred iterations: AdamW scales each gradient by its size over the last
# thousand, and at the usual weight of 30 the budget's leaves gate nets little of the detector's.
short_budget = [dict(type='MACBudgetHook', target=0.5, weight=5.0)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, convert_to_iter_based=True),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=4)
