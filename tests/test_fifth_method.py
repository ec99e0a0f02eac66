"""The documentation's example of a method of one's own, in one file, does all that it says."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.necks import FPN
from mmdet.registry import MODELS

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.inference import compact

EXAMPLE = Path(__file__).resolve().parents[1] / 'docs/examples/random_groups.py'


@pytest.fixture(scope='module', autouse=True)
def example():
    spec = importlib.util.spec_from_file_location('random_groups', EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    cfg = dict(type='RandomGroupResNet', depth=18, base_channels=16, norm_eval=False)
    return MODELS.build(cfg)


def test_its_layer_is_the_equation(example):
    torch.manual_seed(0)
    layer = example.RandomGroupConv2d(8, 6, 3, padding=1, keep=0.5, groups=3)
    assert layer.mask.sum(dim=-1).tolist() == [[4, 4, 4]]
    x = torch.rand(2, 8, 5, 5)
    mask = layer.mask[0].repeat_interleave(2, dim=0)[:, :, None, None]
    expected = F.conv2d(x, layer.weight * mask, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_its_macs_are_counted(backbone):
    report = count_macs(backbone, (64, 64))
    grouped = [row for row in report.layers if row.density is not None]
    assert len(grouped) == 16
    assert all(row.density == 0.5 for row in grouped)


def test_its_compact_form_equals_it(backbone):
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        backbone(x)  # norms that have seen something
        backbone.eval()
        for eager, fast in zip(backbone(x), compact(backbone)(x), strict=True):
            torch.testing.assert_close(fast, eager, atol=1e-4, rtol=1e-4)


def test_it_learns(backbone):
    sum(level.square().sum() for level in backbone(torch.rand(2, 3, 64, 64))).backward()
    gradient = backbone.layer1[0].conv1.weight.grad
    unread = backbone.layer1[0].conv1.mask[0].repeat_interleave(4, dim=0) == 0
    assert gradient.abs().sum() > 0
    assert gradient[unread].abs().sum() == 0


def test_a_neck_takes_it_by_name(example):
    cfg = dict(type='RandomGroupConv2d', keep=0.25, groups=2)
    neck = FPN(in_channels=[8, 16], out_channels=16, num_outs=2, conv_cfg=cfg)
    convs = [m.conv for m in neck.modules() if isinstance(m, ConvModule)]
    assert all(type(conv) is example.RandomGroupConv2d for conv in convs)
