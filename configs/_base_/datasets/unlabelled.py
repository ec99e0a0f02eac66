# Any images to learn from a teacher on, a folder for each of ImageNet's classes to test on; the
# folders `coco_person/images/` and `imagenet_sample/val/` below $MMDET_GROUPCONV_DATA.
data_root = '{{$MMDET_GROUPCONV_DATA:../shared/data}}/'
train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(
        type='ImageFiles',
        data_root=data_root + 'coco_person/images',
        pipeline=[
            dict(type='RandomResizedCrop', size=224, scale=(0.35, 1.0)),
            dict(type='RandomHorizontalFlip'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder',
        data_root=data_root + 'imagenet_sample/val',
        pipeline=[dict(type='Resize', size=256), dict(type='CenterCrop', size=224)],
    ),
)
test_dataloader = val_dataloader
