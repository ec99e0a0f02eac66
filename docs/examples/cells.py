_base_ = 'mmdet_groupconv::retinanet/retinanet_r18_fpn_12e_bccd.py'

# Yours: the folder, the two annotation files, the names of the classes.
data_root = 'data/cells/'
classes = ('Platelets', 'RBC', 'WBC')

data = dict(
    data_root=data_root,
    metainfo=dict(classes=classes),
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(dataset=dict(ann_file='annotations/train.json', **data))
val_dataloader = dict(dataset=dict(ann_file='annotations/val.json', **data))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator
model = dict(bbox_head=dict(num_classes=len(classes)))

epochs = 4
train_cfg = dict(max_epochs=epochs, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=epochs, convert_to_iter_based=True),
]
