"""Importance of connections, against slow and obvious forms."""

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_groupconv.grouping import magnitude_importance, taylor_importance


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 1)).double()


def test_taylor_is_the_squared_slope_of_a_gate_on_each_connection(network):
    images = torch.randn(3, 1, 3, 6, 6, dtype=torch.float64)
    losses = (network(image).square().sum() for image in images)
    found = taylor_importance(network, ['0', '2'], losses)
    expected = torch.zeros(4, 3, dtype=torch.float64)
    for image in images:
        gate = torch.ones(4, 3, 1, 1, dtype=torch.float64, requires_grad=True)
        first = network[0]
        y = nn.functional.conv2d(image, first.weight * gate, first.bias, padding=1)
        (slope,) = torch.autograd.grad(network[2](y.relu()).square().sum(), gate)
        expected += slope[..., 0, 0] ** 2 / len(images)
    np.testing.assert_allclose(found['0'], expected.numpy(), rtol=1e-9)
    assert found['2'].shape == (5, 4)


def test_taylor_of_a_layer_that_the_loss_does_not_see_is_zero(network):
    losses = [network[0](torch.randn(1, 3, 4, 4, dtype=torch.float64)).sum()]
    found = taylor_importance(network, ['0', '2'], losses)
    assert (found['2'] == 0).all()
    assert (found['0'] > 0).any()
    assert all(p.grad is None for p in network.parameters())


def test_magnitude_is_the_kernels_norm_times_the_channels_rms(network):
    images = torch.randn(2, 2, 3, 6, 6, dtype=torch.float64)
    images[:, :, 1] *= 5
    found = magnitude_importance(network, ['0'], [lambda x=x: network(x) for x in images])
    weight = network[0].weight.detach()
    rms = images.transpose(0, 2).reshape(3, -1).square().mean(dim=1).sqrt()
    expected = weight.abs().sum(dim=(2, 3)) * rms
    np.testing.assert_allclose(found['0'], (expected / expected.sum()).numpy(), rtol=1e-9)
    assert not network[0]._forward_pre_hooks


@pytest.mark.parametrize('judge', [taylor_importance, magnitude_importance])
def test_no_image_is_refused(network, judge):
    with pytest.raises(ValueError, match='no image to judge connections by'):
        judge(network, ['0'], [])


def test_taylor_judges_frozen_layers_too_and_leaves_them_frozen(network):
    image = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    expected = taylor_importance(network, ['0', '2'], [network(image).square().sum()])
    network[0].requires_grad_(False)
    losses = (network(image).square().sum() for _ in range(1))
    found = taylor_importance(network, ['0', '2'], losses)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values)
    assert not network[0].weight.requires_grad
    assert network[2].weight.requires_grad
