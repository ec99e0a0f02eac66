"""How much of each layer gates by image are to keep."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_groupconv.grouping import gate_shares, gates_by_image, start_gates
from mmdet_groupconv.layers import DGCConv2d, MSGCConv2d
from mmdet_groupconv.macs import count_macs


@pytest.fixture
def layers():
    return nn.ModuleDict({name: MSGCConv2d(4, 4, 1, heads=2) for name in 'ab'})


def test_the_least_for_its_macs_goes_whichever_layer_has_it(layers):
    importance = {name: np.ones((4, 4)) for name in 'ab'}
    importance['a'][:2, :3] = 0.5  # three channels of a head, which two filters read
    macs = dict(a=8.0, b=8.0)  # 1 for a channel of a head
    assert gate_shares(layers, importance, macs, 3) == dict(a=5 / 8, b=1)
    macs = dict(a=8.0, b=80.0)
    assert gate_shares(layers, importance, macs, 30) == dict(a=1, b=5 / 8)


def test_heads_of_dgc_drop_as_many_channels_each():
    layer = nn.ModuleDict(dict(a=DGCConv2d(4, 4, 1, heads=2, pre_norm=False)))
    importance = np.ones((4, 4))
    importance[0::2, 0] = importance[1::2, 3] = 0.1  # another channel in each head
    macs = dict(a=8.0)
    assert gate_shares(layer, dict(a=importance), macs, 1) == dict(a=3 / 4)
    assert gate_shares(layer, dict(a=importance), macs, 8) == dict(a=1 / 4)  # one is read


@pytest.mark.parametrize(('surplus', 'share'), [(-1, 1), (0, 1), (0.9, 7 / 8), (8, 0), (9, 0)])
def test_no_more_goes_than_has_to(layers, surplus, share):
    found = gate_shares(layers, dict(a=np.ones((4, 4))), dict(a=8.0), surplus)
    assert found == dict(a=share)


def test_layers_without_importance_have_no_share(layers):
    assert gate_shares(layers, {}, {}, 1) == {}


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='MSGCMobileNetV2', widen_factor=0.5),
        dict(type='MSGCResNet', depth=18, base_channels=16),
        dict(type='MSGCResNet', depth=50, base_channels=8),
    ],
    ids=lambda cfg: cfg['type'] + str(cfg.get('depth', '')),
)
def test_a_network_that_keeps_them_does_the_macs_that_are_left(backbone):
    network, size = MODELS.build(backbone), (64, 64)
    rng = np.random.default_rng(0)
    importance = {
        conv.name: rng.random(network.get_submodule(conv.name).weight.shape[:2])
        for conv in gates_by_image(network)
    }
    opened = count_macs(network, size)
    macs = {row.name: row.original for row in opened.layers}
    surplus = 0.3 * opened.original
    start_gates(network, importance, gate_shares(network, importance, macs, surplus))
    for conv in gates_by_image(network):
        conv.generator.conv[3].bias.data -= 0.9  # closes what is not to be kept
    left = count_macs(network, size, torch.randn(1, 3, *size))
    assert (opened.macs - left.macs) / opened.original == pytest.approx(0.3, abs=0.005)


def test_a_network_of_dgc_that_keeps_them_does_the_macs_that_are_left():
    network, size = MODELS.build(dict(type='DGCResNet', depth=18, base_channels=16)), (64, 64)
    layers = {gates.name: gates.layer for gates in gates_by_image(network)}
    rng = np.random.default_rng(0)
    importance = {name: rng.random(layer.weight.shape[:2]) for name, layer in layers.items()}
    opened = count_macs(network, size)
    macs = {row.name: float(row.masked) for row in opened.layers}  # saliencies, too
    start_gates(network, importance)
    for name, share in gate_shares(network, importance, macs, 0.3 * opened.original).items():
        layers[name].gate_factor = share
        layers[name].set_progress(1)
    left = count_macs(network, size, torch.randn(1, 3, *size))
    assert (opened.macs - left.macs) / opened.original == pytest.approx(0.3, abs=0.005)
