import pytest
import torch
from mmdet.models.backbones import MobileNetV2, ResNet
from mmdet.registry import MODELS

from mmdet_groupconv.backbones import TrimmedMobileNetV2
from mmdet_groupconv.checkpoints import check_fit, grouping_keys, trimmed_keys

METHODS = 'MSGC', 'DGC', 'FLGC', 'SGC', 'FixedGroup'


@pytest.mark.parametrize('method', METHODS)
def test_dense_resnets_lack_the_grouping_and_nothing_else(method):
    model = MODELS.build(dict(type=f'{method}ResNet', depth=18, base_channels=16))
    dense = ResNet(18, base_channels=16).state_dict()
    assert model.state_dict().keys() - dense.keys() == set(grouping_keys(model))
    check_fit(model, dense, 'x.pth', may_lack=grouping_keys(model))


@pytest.mark.parametrize('method', METHODS[:4])
def test_dense_mobilenets_add_what_was_trimmed(method):
    model = MODELS.build(dict(type=f'{method}MobileNetV2', out_indices=(1, 2), widen_factor=0.5))
    dense = MobileNetV2(widen_factor=0.5).state_dict()
    may = dict(may_lack=grouping_keys(model), may_add=trimmed_keys(model))
    check_fit(model, dense, 'x.pth', **may)
    with pytest.raises(ValueError, match='unexpected'):
        check_fit(model, dense, 'x.pth', may_lack=may['may_lack'])


def test_names_below_a_parent():
    model = torch.nn.Sequential(TrimmedMobileNetV2(out_indices=(5,)))
    assert trimmed_keys(model) == ['0.layer7.', '0.conv2.']
    assert grouping_keys(model) == []
