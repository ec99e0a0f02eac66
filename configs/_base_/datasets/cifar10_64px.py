# CIFAR-10 enlarged, for backbones with ImageNet's stems, which detectors go on with.
_base_ = './cifar10.py'
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='RandomCrop', size=32, padding=4),
            dict(type='RandomHorizontalFlip'),
            dict(type='Resize', size=64),
        ],
    ),
)
val_dataloader = dict(dataset=dict(pipeline=[dict(type='Resize', size=64)]))
test_dataloader = val_dataloader
