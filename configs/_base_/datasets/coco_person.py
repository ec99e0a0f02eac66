# 2193 + 500 images of MS COCO 2017 with people, at 256 pixels; the folder `coco_person/` below
# $MMDET_GROUPCONV_DATA.
_base_ = './coco_tiny.py'
data_root = '{{$MMDET_GROUPCONV_DATA:../shared/data}}/coco_person/'
people = dict(
    data_root=data_root,
    metainfo=dict(classes=('person',)),
    data_prefix=dict(img='images/'),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    drop_last=True,  # the last of 2193 would be a batch of its own: too few for gate nets' norms
    dataset=dict(ann_file='annotations/instances_train.json', pipeline=train_pipeline, **people),
)
val_dataloader = dict(
    dataset=dict(ann_file='annotations/instances_val.json', pipeline=test_pipeline, **people)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
