# Blood cells (BCCD, MIT licence): 3 classes, 292 + 72 images of 640x480, here at 320x240; the
# folder `bccd/` below $MMDET_GROUPCONV_DATA.
_base_ = './coco_tiny.py'
data_root = '{{$MMDET_GROUPCONV_DATA:../shared/data}}/bccd/'
cells = dict(
    data_root=data_root,
    metainfo=dict(classes=('Platelets', 'RBC', 'WBC')),
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(dataset=dict(ann_file='annotations/instances_train.json', **cells))
val_dataloader = dict(dataset=dict(ann_file='annotations/instances_val.json', **cells))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
