"""Layers that are fitted, one after the other, to the dense network's outputs."""

import copy

import pytest
import torch
from torch import nn

from mmdet_groupconv.grouping import compensate, compensation
from mmdet_groupconv.grouping.least_squares import _RIDGE


def chain():
    """Two convolutions, the second used twice, and their dense form."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1))
    dense.append(dense[2])
    grouped = copy.deepcopy(dense)
    return dense, grouped


def halves(filters, channels):
    return torch.arange(filters)[:, None] % 2 == torch.arange(channels) % 2


MASKS = {'0': halves(6, 4), '2': halves(6, 6)}


def cut(network, masks):
    with torch.no_grad():
        for name, mask in masks.items():
            network.get_submodule(name).weight *= mask[..., None, None]


def fit(dense, grouped, masks, *images):
    def runs(network):
        return [lambda x=x: network(x) for x in images]

    compensate(dense, grouped, masks, runs(dense), lambda: runs(grouped))


def images(number=1):
    """Whose channels are somewhat alike."""
    torch.manual_seed(1)
    return [torch.randn(2, 1, 8, 8) + 0.5 * torch.randn(2, 4, 8, 8) for _ in range(number)]


def test_the_first_layer_is_ridge_regression_towards_its_weight():
    dense, grouped = chain()
    cut(grouped, MASKS)
    start = grouped[0].weight.detach().flatten(1).double()
    (x,) = images()
    fit(dense, grouped, {'0': MASKS['0']}, x)
    columns = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    wanted = columns @ dense[0].weight.detach().flatten(1).double().T
    part = (len(columns) * _RIDGE * columns.square().mean()).sqrt()
    for filt in range(6):
        read = MASKS['0'][filt].repeat_interleave(9)
        # The last unknown is the offset, which nothing holds back.
        a = torch.zeros(len(columns) + int(read.sum()), int(read.sum()) + 1, dtype=torch.float64)
        a[: len(columns), :-1], a[: len(columns), -1] = columns[:, read], 1
        a[len(columns) :, :-1] = part * torch.eye(int(read.sum()))
        b = torch.cat([wanted[:, filt], part * start[filt, read]])
        *expected, offset = torch.linalg.lstsq(a, b[:, None]).solution[:, 0]
        found = grouped[0].weight[filt].flatten()
        torch.testing.assert_close(
            found[read].double(), torch.stack(expected), rtol=1e-3, atol=1e-4
        )
        assert not found[~read].any()
        added = grouped[0].bias[filt] - dense[0].bias[filt]
        torch.testing.assert_close(added.double(), offset, rtol=1e-3, atol=1e-4)


def test_a_later_layer_makes_up_for_an_earlier_one():
    dense, grouped = (net[:3] for net in chain())
    for network, scale in ((dense, 1.0), (grouped, 0.5)):
        network[0].bias.data.zero_()
        network[0].weight.data *= scale
    (x,) = images()
    fit(dense, grouped, {'2': torch.ones(6, 6, dtype=torch.bool)}, x)
    torch.testing.assert_close(grouped[2].weight, 2 * dense[2].weight, rtol=0.1, atol=0.01)


def test_layers_come_in_the_order_that_they_run_in():
    dense, grouped = chain()
    for network in dense, grouped:
        torch.manual_seed(2)
        network.append(nn.Conv2d(6, 6, 3, padding=1))  # behind one that is used twice
    masks = MASKS | {'4': halves(6, 6)}
    cut(grouped, masks)
    other = copy.deepcopy(grouped)
    x = images(2)
    fit(dense, grouped, dict(reversed(masks.items())), *x)
    for name, mask in masks.items():
        fit(dense, other, {name: mask}, *x)
    for one, two in zip(grouped.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_a_network_that_equals_the_dense_one_stays_as_it_is():
    dense, grouped = chain()
    cut(dense, MASKS)
    cut(grouped, MASKS)
    before = copy.deepcopy(grouped)
    fit(dense, grouped, MASKS, *images())
    for one, two in zip(grouped.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.Identity])
def test_without_a_bias_a_batch_norm_has_the_offset(norm):
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(4, 6, 3, bias=False)).append(norm(6)).append(norm(6)).eval()
    grouped = copy.deepcopy(dense)
    cut(grouped, {'0': MASKS['0']})
    (x,) = images()
    x = x + 5
    fit(dense, grouped, {'0': MASKS['0']}, x)
    off = (grouped(x) - dense(x)).mean(dim=(0, 2, 3))
    assert (off.abs() < 1e-3).all() == (norm is nn.BatchNorm2d)
    if norm is nn.BatchNorm2d:
        assert not grouped[2].running_mean.any()  # which reads the norm, not the layer


def test_what_is_before_a_layer_is_not_computed_for_each_image_and_layer(monkeypatch):
    dense, grouped = chain()
    cut(grouped, MASKS)
    computed = []
    convolve = nn.Conv2d.forward
    monkeypatch.setattr(
        nn.Conv2d, 'forward', lambda own, x: computed.append(own) or convolve(own, x)
    )
    fit(dense, grouped, MASKS, *images(2))
    # Once fitted, for the second layer; the second layer itself between its two calls.
    assert computed.count(grouped[0]) == 2
    assert computed.count(grouped[2]) == 2


def test_nothing_runs_behind_a_layer_that_has_had_its_inputs():
    dense, grouped = chain()
    ran = []
    grouped[1].register_forward_hook(lambda *_: ran.append(1))
    fit(dense, grouped, {'0': MASKS['0']}, *images())
    assert not ran
    assert not grouped[0]._forward_pre_hooks


def test_maps_are_sampled_alike_in_both_networks(monkeypatch):
    monkeypatch.setattr(compensation, 'SAMPLES', 100)
    dense, grouped = chain()
    cut(grouped, {'0': MASKS['0']})
    start = grouped[0].weight.detach().clone()
    whole = {'0': torch.ones(6, 4, dtype=torch.bool)}
    fit(dense, grouped, whole, *images(3))  # other positions would be noise
    lacking = (grouped[0].weight - dense[0].weight).square().sum()
    assert lacking < 0.01 * (start - dense[0].weight).square().sum()


@pytest.mark.parametrize('reached', [True, False])
def test_layers_that_are_wide_or_never_reached_keep_their_weights(monkeypatch, reached):
    if reached:
        monkeypatch.setattr(compensation, 'WIDE', 35)
    dense, grouped = (nn.ModuleDict(dict(zip('ab', net, strict=False))) for net in chain())
    cut(grouped, {'a': MASKS['0']})
    before = copy.deepcopy(grouped)
    x = torch.randn(1, 4, 8, 8)
    layer = 'a' if reached else 'b'
    runs = [lambda: dense[layer](x)]
    compensate(dense, grouped, {'a': MASKS['0']}, runs, lambda: [lambda: grouped[layer](x)])
    assert torch.equal(grouped['a'].weight, before['a'].weight)
