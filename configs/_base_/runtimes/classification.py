# What a pretraining run logs, keeps and measures.
default_scope = 'mmdet'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2, save_best='accuracy/top1'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
log_processor = dict(type='LogProcessor', window_size=50)
log_level = 'INFO'
load_from = None
resume = False
val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type='Accuracy')
test_evaluator = val_evaluator
randomness = dict(seed=0, diff_rank_seed=True)
