"""Spaces of channels, read from autograd's graph."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_groupconv.grouping import find_spaces


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.conv2 = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        y = self.depthwise(F.relu(self.norm1(self.conv1(x))))
        return F.relu(self.conv2(y) + x)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(Block(), Block())
        self.fc = nn.Linear(4, 2)
        self.mixed = nn.Conv2d(8, 2, 1)

    def forward(self, image):
        x = self.blocks(F.max_pool2d(self.stem(image), 2))
        both = torch.cat([x, x], dim=1)
        return self.fc(x.mean(dim=(2, 3))), self.mixed(both)


@pytest.fixture
def network():
    return Network().eval()


def spaces_of(network):
    return find_spaces(network, lambda: network(torch.rand(1, 3, 8, 8)))


def test_a_residual_stream_is_one_space(network):
    layers = spaces_of(network).layers
    stream = layers['stem'].writes
    for block in ('blocks.0', 'blocks.1'):
        assert layers[f'{block}.conv1'].reads == stream
        assert layers[f'{block}.conv2'].writes == stream
    assert layers['fc'].reads == stream


def test_norms_activations_and_depthwise_convolutions_keep_channels(network):
    layers = spaces_of(network).layers
    hidden = [layers[f'blocks.{n}.conv1'].writes for n in (0, 1)]
    assert hidden == [layers[f'blocks.{n}.conv2'].reads for n in (0, 1)]
    assert len({*hidden, layers['stem'].writes}) == 3
    assert 'blocks.0.depthwise' not in layers


def test_what_comes_from_the_image_or_is_concatenated_is_no_space(network):
    layers = spaces_of(network).layers
    assert layers['stem'].reads is None
    assert layers['mixed'].reads is None


def test_spaces_that_several_layers_write_are_told(network):
    spaces = spaces_of(network)
    assert spaces.added == {spaces.layers['stem'].writes}
    assert spaces.sizes[spaces.layers['stem'].writes] == 4
    assert spaces.sizes[spaces.layers['blocks.0.conv1'].writes] == 6


def test_frozen_parts_are_seen_and_stay_frozen(network):
    expected = spaces_of(network)
    for parameter in network.stem.parameters():
        parameter.requires_grad_(False)
    for parameter in network.blocks[0].parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        assert spaces_of(network) == expected
    assert not any(p.requires_grad for p in network.blocks[0].parameters())
    assert network.fc.weight.requires_grad


def test_no_hook_is_left(network):
    spaces_of(network)
    assert not any(module._forward_hooks for module in network.modules())
