# 2193 + 500 images of MS COCO 2017 with people, at 320 pixels; the folder `coco_person/` below
# $MMDET_GROUPCONV_DATA.
_base_ = './coco_tiny.py'
data_root = '{{$MMDET_GROUPCONV_DATA:../shared/data}}/coco_person/'
people = dict(
    data_root=data_root,
    metainfo=dict(classes=('person',)),
    data_prefix=dict(img='images/'),
)
train_dataloader = dict(dataset=dict(ann_file='annotations/instances_train.json', **people))
val_dataloader = dict(dataset=dict(ann_file='annotations/instances_val.json', **people))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
