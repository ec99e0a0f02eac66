import pytest
import torch
import torch.nn.functional as F
from mmengine.model import initialize

from mmdet_groupconv.layers import FixedGroupConv2d, SeparableConv2d


@pytest.mark.parametrize(
    ('geometry', 'bias'),
    [(dict(), True), (dict(stride=2, padding=1), False), (dict(padding=2, dilation=2), True)],
)
def test_is_a_depthwise_then_a_pointwise_convolution(geometry, bias):
    torch.manual_seed(0)
    layer, x = SeparableConv2d(4, 6, 3, bias=bias, **geometry), torch.randn(2, 4, 7, 8)
    depthwise, pointwise = layer.depthwise.weight, layer.pointwise.weight
    assert (depthwise.shape, pointwise.shape) == ((4, 1, 3, 3), (6, 4, 1, 1))
    maps = [F.conv2d(x[:, c : c + 1], depthwise[c : c + 1], **geometry) for c in range(4)]
    expected = torch.einsum('kc,bchw->bkhw', pointwise[..., 0, 0], torch.cat(maps, dim=1))
    if bias:
        expected = expected + layer.pointwise.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_bias_is_the_pointwise_convolutions_alone():
    layer = SeparableConv2d(4, 6, 3)
    assert set(layer.state_dict()) == {'depthwise.weight', 'pointwise.weight', 'pointwise.bias'}


@pytest.mark.parametrize(
    ('kernel', 'geometry'), [(1, dict()), ((1, 1), dict(stride=2)), (1, dict(stride=3, padding=1))]
)
def test_kernel_of_1_is_one_convolution(kernel, geometry):
    layer, x = SeparableConv2d(4, 6, kernel, **geometry), torch.randn(2, 4, 7, 8)
    assert layer.depthwise is None
    expected = F.conv2d(x, layer.pointwise.weight, layer.pointwise.bias, **geometry)
    torch.testing.assert_close(layer(x), expected)


def test_pointwise_convolution_may_be_grouped():
    layer = SeparableConv2d(4, 6, 3, bias=False, pointwise=FixedGroupConv2d)
    assert type(layer.pointwise) is FixedGroupConv2d
    assert layer.pointwise.bias is None


def test_groups_raise():
    with pytest.raises(ValueError, match='groups=2 of a separable convolution, expected 1'):
        SeparableConv2d(4, 4, 3, groups=2)


@pytest.mark.parametrize('kernel', [1, 3])
def test_depthwise_output_keeps_its_scale_after_a_hosts_initialisation(kernel):
    torch.manual_seed(0)
    layer = SeparableConv2d(64, 64, kernel)
    initialize(layer, dict(type='Normal', layer='Conv2d', std=0.01))
    layer.init_weights()
    assert layer.pointwise.weight.std().item() == pytest.approx(0.01, rel=0.05)
    if kernel == 3:  # 9 inputs an output: 1/3
        assert layer.depthwise.weight.std().item() == pytest.approx(1 / 3, rel=0.1)
