"""Images to calibrate on are drawn over the data set, the same ones in every process."""

from collections import Counter

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from PIL import Image

from mmdet_groupconv.engine.calibration import (
    calibration_batches,
    training_images,
    training_losses,
)
from mmdet_groupconv.engine.data_inputs import check_data
from mmdet_groupconv.engine.launch import build_model


def names(batches):
    return [sample.img_path for batch in batches for sample in batch['data_samples']]


def test_are_as_many_as_asked_for_in_the_test_s_batches(tiny_cfg):
    check_data(tiny_cfg, ('train',))  # makes the scenes
    batches = list(calibration_batches(tiny_cfg, 3))
    assert [len(batch['inputs']) for batch in batches] == [2, 2, 2]
    assert len(list(calibration_batches(tiny_cfg, 99))) == 4  # all there are


def test_are_the_same_in_every_process(tiny_cfg, monkeypatch):
    check_data(tiny_cfg, ('train',))
    alone = names(calibration_batches(tiny_cfg, 2))
    monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (1, 2))
    assert names(calibration_batches(tiny_cfg, 2)) == alone


def test_losses_are_those_of_the_training_with_norms_as_they_are(tiny_cfg):
    """Of a head that gives boxes in strides in training, in pixels else."""
    check_data(tiny_cfg, ('train',))
    fcos = get_config(
        'mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py'
    )
    classes = tiny_cfg.model.bbox_head.num_classes
    head = dict(in_channels=tiny_cfg.model.neck.out_channels, num_classes=classes, stacked_convs=1)
    head.update(strides=[8, 16, 32], regress_ranges=((-1, 32), (32, 64), (64, 1e8)))
    tiny_cfg.model = dict(tiny_cfg.model, type='FCOS', bbox_head=dict(fcos.model.bbox_head, **head))
    tiny_cfg.model.train_cfg, tiny_cfg.model.test_cfg = None, fcos.model.test_cfg
    model = build_model(tiny_cfg)
    (batch,) = training_images(tiny_cfg, 1)
    (found,) = training_losses(model, [batch])
    model.train()
    model.backbone.eval()
    data = model.data_preprocessor(batch, training=True)
    assert found == model.parse_losses(model(**data, mode='loss'))[0]


@pytest.fixture
def classifier_cfg(tmp_path):
    for name in 'abcd':
        for number in range(8):
            path = tmp_path / 'train' / name / f'{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (8, 8)).save(path)
    dataset = dict(type='ImageFolder', data_root=str(tmp_path / 'train'), pipeline=[])
    loader = dict(batch_size=4, collate_fn=dict(type='default_collate'), dataset=dataset)
    return Config(dict(train_dataloader=loader, test_dataloader=loader))


def test_are_drawn_from_every_class_though_the_data_are_sorted(classifier_cfg):
    batches = list(calibration_batches(classifier_cfg, 4))
    assert batches[0]['inputs'].shape == (4, 3, 8, 8)
    labels = Counter(int(label) for batch in batches for label in batch['data_samples'])
    assert len(labels) == 4
