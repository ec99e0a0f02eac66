# A sanity check's data: the first 8 training images, seen over and over and then evaluated on.
_base_ = './coco_tiny.py'
first8 = dict(
    type='CocoDataset',
    data_root=_base_.data_root,
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
    indices=8,
)
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=50,
        dataset=dict(**first8, pipeline=[*load, dict(type='PackDetInputs')]),
    )
)
# Ground truth travels with the images: the annotation file holds all 80.
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        **first8,
        test_mode=True,
        pipeline=[*load, dict(type='PackDetInputs', meta_keys=meta_keys)],
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=None)
test_evaluator = val_evaluator
