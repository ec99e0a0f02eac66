"""The documentation's examples of methods of one's own, a file each, do all that they say."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.necks import FPN
from mmdet.registry import MODELS

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.compiler import compact
from mmdet_groupconv.deploy import export_onnx

EXAMPLES = Path(__file__).resolve().parents[1] / 'docs/examples'


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module', autouse=True)
def example():
    return load('random_groups')


@pytest.fixture(scope='module', autouse=True)
def by_image():
    return load('loudest_groups')


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


@pytest.fixture(params=['RandomGroupResNet', 'LoudestGroupResNet'])
def seen(request):
    """Either, with norms that have seen something."""
    torch.manual_seed(0)
    cfg = dict(type=request.param, depth=18, base_channels=16, norm_eval=False)
    network = MODELS.build(cfg)
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))
    return network.eval()


@torch.no_grad()
def test_their_compact_forms_equal_them(seen):
    x, fast = torch.rand(2, 3, 64, 64), compact(seen)
    assert fast.stays_eager == {}
    for one, other in zip(fast(x), seen(x), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_their_onnx_files_equal_them(seen, tmp_path):
    report = export_onnx(seen, tmp_path / 'network.onnx', (64, 96))  # compares
    assert (report.ungrouped is None) == (type(seen).__name__ == 'LoudestGroupResNet')


def test_gates_by_image_are_those_of_the_equation(by_image):
    torch.manual_seed(0)
    layer = by_image.LoudestGroupConv2d(8, 6, 3, padding=1, keep=0.5, groups=3)
    torch.nn.init.uniform_(layer.taste, 0.5, 1.5)
    x = torch.randn(2, 8, 5, 5)
    damped = x * (1 + x.abs()).rsqrt()
    gate = layer.decide(damped.mean(dim=(2, 3), keepdim=True))
    assert gate.mask.sum(dim=-1).tolist() == [[4, 4, 4]] * 2
    weights = layer.weight * gate.value.repeat_interleave(2, dim=1)[..., None, None]
    expected = [F.conv2d(x, w, layer.bias, padding=1) for x, w in zip(damped, weights, strict=True)]
    torch.testing.assert_close(layer(x), torch.stack(expected))


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
