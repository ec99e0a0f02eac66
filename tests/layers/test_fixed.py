import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_groupconv.layers import FixedGroupConv2d


@pytest.mark.parametrize(('groups', 'bias'), [(1, True), (2, False), (3, True), (6, False)])
def test_equals_torchs_groups(groups, bias):
    torch.manual_seed(0)
    geometry = dict(stride=2, padding=2, dilation=2, bias=bias)
    layer = FixedGroupConv2d(6, 12, 3, groups=groups, **geometry)
    grouped = nn.Conv2d(6, 12, 3, groups=groups, **geometry)
    width = 6 // groups
    with torch.no_grad():
        for k in range(12):
            first = k // (12 // groups) * width
            grouped.weight[k] = layer.weight[k, first : first + width]
        if bias:
            grouped.bias.copy_(layer.bias)
    x = torch.randn(2, 6, 9, 8)
    torch.testing.assert_close(layer(x), grouped(x), atol=1e-5, rtol=1e-5)


def test_groups_that_do_not_divide_differ_by_one():
    layer = FixedGroupConv2d(5, 7, 1, groups=3)
    # channels 0, 1 | 2, 3 | 4 and filters 0, 1, 2 | 3, 4 | 5, 6
    assert layer.channel_groups.tolist() == [0, 0, 1, 1, 2]
    assert layer.filter_groups.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert layer.equal_groups == 0


def test_groups_are_state_beside_the_dense_weight():
    torch.manual_seed(0)
    layer, other = FixedGroupConv2d(8, 12, 1, groups=4), FixedGroupConv2d(8, 12, 1, groups=4)
    assert list(layer.state_dict()) == ['weight', 'bias', 'channel_groups', 'filter_groups']
    layer.start_from_groups(torch.randperm(8) // 4, torch.randperm(12) // 6)  # two of the four
    assert layer.equal_groups == 2
    other.load_state_dict(layer.state_dict())
    x = torch.randn(1, 8, 3, 3)
    assert torch.equal(other(x), layer(x))
    assert other.equal_groups == 2


@pytest.mark.parametrize('bias', [True, False])
def test_any_equal_groups_give_the_masked_convolution(bias):
    torch.manual_seed(0)
    layer = FixedGroupConv2d(8, 12, 3, groups=4, stride=2, padding=1, bias=bias).double()
    channels, filters = torch.randperm(8) // 2, torch.randperm(12) // 3
    layer.start_from_groups(channels, filters)
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64, requires_grad=True)
    mask = (filters[:, None] == channels).double()[..., None, None]  # [K, C, 1, 1]
    expected = F.conv2d(x, layer.weight * mask, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)
    upstream = torch.randn_like(expected)
    inputs = [x, *layer.parameters()]
    for found, wanted in zip(
        torch.autograd.grad(layer(x), inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_equal_groups_are_convolved_as_groups(monkeypatch):
    layer = FixedGroupConv2d(8, 8, 1, groups=2)
    seen = []
    real = F.conv2d
    monkeypatch.setattr(F, 'conv2d', lambda *args: seen.append(args[-1]) or real(*args))
    layer(torch.randn(1, 8, 2, 2))
    assert seen == [2]


def test_channels_and_filters_of_different_groups_are_not_connected():
    layer = FixedGroupConv2d(4, 4, 1, groups=3)
    layer.start_from_groups(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 2, 2]))
    assert layer.equal_groups == 0  # of equal size, but nothing reads group 1
    y = layer(torch.randn(2, 4, 3, 3))
    torch.testing.assert_close(y[:, 2:], layer.bias[2:, None, None].expand(2, 2, 3, 3))


def test_weights_of_other_groups_get_no_gradient():
    layer = FixedGroupConv2d(4, 4, 1, groups=2)
    layer(torch.randn(2, 4, 3, 3)).square().sum().backward()
    blocks = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))
    assert torch.equal(layer.weight.grad[..., 0, 0] != 0, blocks == 1)


@pytest.mark.parametrize(
    ('groups', 'message'),
    [
        (5, 'FixedGroupConv2d has 4 -> 8 channels for 5 groups'),
        (0, 'groups=0 of FixedGroupConv2d, expected an integer of 1 or more'),
    ],
)
def test_groups_out_of_range_raise(groups, message):
    with pytest.raises(ValueError, match=message):
        FixedGroupConv2d(4, 8, 1, groups=groups)


def test_says_why_it_should_stay_dense():
    assert FixedGroupConv2d.why_dense(8, 3, groups=4) == '8 -> 3 channels for 4 groups'
    assert FixedGroupConv2d.why_dense(8, 4, groups=4) is None
