"""Images to calibrate on are drawn over the data set, the same ones in every process."""

from collections import Counter

import pytest
from mmengine.config import Config
from PIL import Image

from mmdet_groupconv.engine.calibration import calibration_batches
from mmdet_groupconv.engine.data_inputs import check_data


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
