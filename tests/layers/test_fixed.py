import pytest
import torch
from torch import nn

from mmdet_groupconv.layers import FixedGroupConv2d


@pytest.mark.parametrize('groups', [1, 2, 3, 6])
@pytest.mark.parametrize('bias', [True, False])
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
    assert layer.mask[0].tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    assert layer.assign.tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_state_is_the_dense_one():
    assert list(FixedGroupConv2d(8, 8, 3).state_dict()) == ['weight', 'bias']


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
