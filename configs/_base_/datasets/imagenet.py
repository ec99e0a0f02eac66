# ImageNet-1k as a folder of images for each class: data/imagenet/{train,val}/n01440764/*.JPEG
data_root = 'data/imagenet/'
train_dataloader = dict(
    batch_size=32,  # of 8 processes: 256 in all, as published
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(
        type='ImageFolder',
        data_root=data_root + 'train',
        pipeline=[
            dict(type='RandomResizedCrop', size=224),
            dict(type='RandomHorizontalFlip'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder',
        data_root=data_root + 'val',
        pipeline=[dict(type='Resize', size=256), dict(type='CenterCrop', size=224)],
    ),
)
test_dataloader = val_dataloader
