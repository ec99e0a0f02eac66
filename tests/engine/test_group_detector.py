"""What a budget can be, before a detector is grouped for it."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_groupconv.engine.group_detector import Settings, _grouped
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.macs import count_macs

MOBILE = Path(__file__).resolve().parents[2] / 'configs/retinanet/retinanet_mbv2_fpn_1x_coco.py'


def grouped(macs):
    cfg = Config.fromfile(MOBILE)
    settings = Settings('msgc', macs, 'backbone', 8, 'taylor', 1, (64, 64))
    return _grouped(cfg, settings, count_macs(build_model(cfg), (64, 64)))


def test_what_only_closed_gates_would_read_counts_as_saved():
    """A MobileNetV2's expanding and depthwise convolutions stay dense, 0.59 of its MACs."""
    _, model, _ = grouped(0.5)
    backbone = count_macs(model, (64, 64)).parts['backbone']
    assert backbone.always_on > 0.5 * backbone.original


def test_the_least_is_with_all_gates_closed():
    with pytest.raises(ValueError, match='can not be met with msgc: the least is above 0'):
        grouped(0.05)
