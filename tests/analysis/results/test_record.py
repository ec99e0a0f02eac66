"""What a run says of itself in a row of results."""

import json

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet_groupconv.analysis.results import PRUNING, read_rows, record_run
from mmdet_groupconv.analysis.results.record import config_hash, count_parameters
from mmdet_groupconv.layers import FixedGroupConv2d, MSGCConv2d


def test_weights_between_groups_are_no_parameters():
    fixed = nn.Sequential(FixedGroupConv2d(3, 12, 3, groups=3), nn.Conv2d(12, 5, 1))
    assert count_parameters(fixed) == 12 * 1 * 9 + 12 + 12 * 5 + 5


def test_weights_that_an_image_may_need_are():
    layer = MSGCConv2d(3, 12, 3, heads=2)
    everything = sum(parameter.numel() for parameter in layer.parameters())
    assert count_parameters(nn.Sequential(layer)) == everything


def test_of_gates_that_are_held_neither_nets_nor_closed_weights_are():
    layer = MSGCConv2d(3, 12, 3, heads=2)
    layer.maskgen.hold(torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
    assert count_parameters(nn.Sequential(layer)) == 6 * 1 * 9 + 6 * 2 * 9 + 12


def test_what_pruning_left_is_what_it_says(tmp_path):
    Config(dict(train_cfg=dict(max_epochs=1), model=dict(type='none'))).dump(tmp_path / 'config.py')
    log = tmp_path / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    train = dict(loss=1.0, lr=0.1, time=3.6, epoch=1, iter=10, step=10)
    lines = train, {'coco/bbox_mAP': 0.5, 'mac_ratio_detector': 1.0, 'step': 1}
    log.write_text('\n'.join(map(json.dumps, lines)))
    (tmp_path / PRUNING).write_text('{"macs": {"detector": 0.4}, "parameters": 7}')
    about = dict(detector='a', data='b', method='c', scope='detector', dense=None)
    row, epochs = record_run(str(tmp_path), 'name', about)
    assert (row.macs, row.parameters, row.mean_ap) == (dict(detector=0.4), 7, 0.5)
    assert epochs[-1]['mac_ratio_detector'] == 0.4


def test_the_hash_is_of_what_is_trained_not_of_where():
    one = dict(lr=0.1, data=dict(root='/here', size=3), work_dir='a', load_from='/here/a.pth')
    moved = dict(lr=0.1, data=dict(root='/there', size=3), work_dir='b', load_from=None)
    other = dict(one, data=dict(root='/here', size=4))
    assert config_hash(Config(one)) == config_hash(Config(moved))
    assert config_hash(Config(one)) != config_hash(Config(other))


@pytest.mark.parametrize('content', ['{}', '{"name": "a", "colour": 1}', 'no JSON'])
def test_a_file_that_is_no_row_is_named(tmp_path, content):
    (tmp_path / 'a.json').write_text(content)
    with pytest.raises(ValueError, match=r'a\.json holds no row of results'):
        read_rows(tmp_path)
