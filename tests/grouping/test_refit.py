"""Weights of a grouped layer, fitted to the dense one's outputs."""

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_groupconv.grouping import Groups, Refit, regular_clusters
from mmdet_groupconv.grouping.least_squares import _RIDGE

HALVES = Groups(2, np.arange(6) % 2, np.arange(4) // 2, 0.5)


def refit_of(layer, *inputs):
    network = nn.Sequential(layer)
    return Refit(network, ['0'], [lambda x=x: network(x) for x in inputs])


def mean_square(values):
    return float(values.detach().square().mean())


@pytest.mark.parametrize(('stride', 'padding', 'dilation'), [(1, 0, 1), (2, 1, 1), (1, 2, 2)])
def test_is_ridge_regression_on_what_a_group_reads(stride, padding, dilation):
    layer = nn.Conv2d(6, 4, 3, stride, padding, dilation, bias=False)
    x = torch.randn(5, 6, 9, 9)
    fitted = refit_of(layer, x)('0', HALVES).double()
    columns = nn.functional.unfold(x, 3, dilation, padding, stride).double()
    columns = columns.transpose(1, 2).flatten(0, 1)
    weight = layer.weight.detach().double().flatten(1)
    ridge = _RIDGE * float(columns.square().mean())
    for group in range(2):
        read = np.repeat(HALVES.channels == group, 9)
        for filt in np.flatnonzero(HALVES.filters == group):
            a = torch.cat([columns[:, read], (len(columns) * ridge) ** 0.5 * torch.eye(read.sum())])
            b = torch.cat(
                [columns @ weight[filt], (len(columns) * ridge) ** 0.5 * weight[filt, read]]
            )
            expected = torch.linalg.lstsq(a.double(), b[:, None].double()).solution[:, 0]
            found = fitted[filt].flatten()[torch.from_numpy(read)]
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_is_zero_across_groups():
    fitted = refit_of(nn.Conv2d(6, 4, 3), torch.randn(2, 6, 8, 8))('0', HALVES)
    assert not fitted[~torch.from_numpy(HALVES.mask)].any()


def test_comes_closer_to_the_dense_outputs_than_cutting_alone():
    layer = nn.Conv2d(6, 4, 3, bias=False)
    x = torch.randn(4, 1, 8, 8) + 0.5 * torch.randn(4, 6, 8, 8)  # channels that are alike
    fitted = refit_of(layer, x)('0', HALVES)
    wanted, conv = layer(x), nn.functional.conv2d
    cut = layer.weight * torch.from_numpy(HALVES.mask)[..., None, None]
    assert mean_square(conv(x, fitted) - wanted) < 0.5 * mean_square(conv(x, cut) - wanted)


def test_channels_that_copy_one_another_lose_next_to_nothing():
    layer = nn.Conv2d(6, 4, 1, bias=False)
    x = torch.randn(4, 1, 8, 8).expand(4, 6, 8, 8)
    fitted = refit_of(layer, x)('0', HALVES)
    wanted = layer(x)
    assert mean_square(nn.functional.conv2d(x, fitted) - wanted) < 1e-3 * mean_square(wanted)


def test_clusters_are_fitted_each_on_what_it_reads():
    layer = nn.Linear(6, 4)
    clusters = regular_clusters(np.random.default_rng(0).random((4, 6)), 2, 4)
    fitted = refit_of(layer, torch.randn(50, 6))('0', clusters)
    assert ((fitted != 0) == torch.from_numpy(clusters.mask)).all()


def test_the_dense_layer_keeps_its_weight():
    layer = nn.Conv2d(6, 4, 3)
    refit = refit_of(layer, torch.randn(2, 6, 8, 8))
    assert torch.equal(refit('0', None), layer.weight)


def test_wide_layers_are_fitted_alike(monkeypatch):
    layer = nn.Conv2d(6, 4, 3)
    x = torch.randn(2, 6, 8, 8)
    expected = refit_of(layer, x)('0', HALVES)
    monkeypatch.setattr('mmdet_groupconv.grouping.refit.WIDE', 53)
    torch.testing.assert_close(refit_of(layer, x)('0', HALVES), expected, rtol=1e-4, atol=1e-5)


def test_a_layer_that_no_image_reaches_keeps_what_it_may(monkeypatch):
    network = nn.ModuleDict(dict(used=nn.Linear(6, 4), idle=nn.Linear(6, 4)))
    for most in (100, 5):
        monkeypatch.setattr('mmdet_groupconv.grouping.refit.WIDE', most)
        refit = Refit(network, ['used', 'idle'], [lambda: network['used'](torch.randn(3, 6))])
        expected = network['idle'].weight * torch.from_numpy(HALVES.mask)
        assert torch.equal(refit('idle', HALVES), expected)


def test_a_layer_that_runs_several_times_counts_all_its_inputs():
    layer = nn.Conv2d(6, 4, 1, bias=False)
    x = torch.randn(2, 6, 8, 8)
    apart, together = refit_of(layer, x[:1], x[1:]), refit_of(layer, x)
    torch.testing.assert_close(apart('0', HALVES), together('0', HALVES))


def test_without_images_there_is_an_error():
    with pytest.raises(ValueError, match='no image to fit weights on, expected one or more'):
        refit_of(nn.Conv2d(6, 4, 3))


def test_without_layers_no_image_is_run():
    def run():
        raise AssertionError('an image was run')

    Refit(nn.Sequential(nn.Conv2d(6, 4, 3)), [], [run])
