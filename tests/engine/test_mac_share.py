"""What a budget can be, before a detector is grouped for it."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_groupconv.engine.grouped_config import grouped_config
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.engine.mac_share import MacShare

MOBILE = Path(__file__).resolve().parents[2] / 'configs/retinanet/retinanet_mbv2_fpn_1x_coco.py'


@pytest.fixture(scope='module')
def dense():
    return build_model(Config.fromfile(MOBILE))


@pytest.fixture
def grouped():
    hook = dict(type='MACRatioHook')
    return build_model(grouped_config(Config.fromfile(MOBILE), 'msgc', 'backbone', hook))


def test_what_only_closed_gates_would_read_counts_as_saved(dense, grouped):
    """A MobileNetV2's expanding and depthwise convolutions stay dense, 0.59 of its MACs."""
    share = MacShare(dense, 0.5, 'backbone', (64, 64))
    opened = share.of_scope(share.count(grouped))
    assert opened.always_on > 0.5 * share.whole
    assert 0 < share.for_groups(grouped, 'msgc') < 0.5 * share.whole


def test_the_least_is_with_all_gates_closed(dense, grouped):
    share = MacShare(dense, 0.05, 'backbone', (64, 64))
    with pytest.raises(ValueError, match='can not be met with msgc: the least is above 0'):
        share.for_groups(grouped, 'msgc')


@pytest.mark.parametrize(('scope', 'other'), [('backbone', 'detector'), ('detector', 'backbone')])
def test_the_excess_is_of_the_scope(dense, scope, other):
    share, rest = (MacShare(dense, 0.75, name, (64, 64)) for name in (scope, other))
    assert share.excess(share.dense) == pytest.approx(0.25 * share.whole)
    assert share.whole != rest.whole
