import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_groupconv.layers import (
    DGCConv2d,
    FLGCConv2d,
    Gate,
    GroupedConv2d,
    MSGCConv2d,
    SGCConv2d,
)
from mmdet_groupconv.macs import MacMeter

# 8*3*3 = 72 weights a channel: fewer than 2*9*9 features (folded), more than 2*4*4 (features).
SIZES = pytest.mark.parametrize('size', [9, 4], ids=['folded', 'features'])


def half_open(batch, heads, channels):
    return Gate((torch.rand(batch, heads, channels) < 0.5).float())


def test_dense_state_dict_loads_under_the_same_keys():
    dense, ours = nn.Conv2d(4, 8, 3), GroupedConv2d(4, 8, 3)
    assert list(ours.state_dict()) == ['weight', 'bias']
    ours.load_state_dict(dense.state_dict())
    assert torch.equal(ours.weight, dense.weight)


@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=1, bias=False),
        dict(kernel_size=3, stride=2, padding=1),
        dict(kernel_size=(3, 1), stride=(1, 2), padding=(2, 0), dilation=2),
    ],
)
def test_takes_the_arguments_of_a_convolution(arguments):
    torch.manual_seed(0)
    layer, x = GroupedConv2d(4, 8, **arguments), torch.randn(2, 4, 7, 7)
    y = layer(x, Gate(torch.ones(2, 2, 4)))
    geometry = layer.stride, layer.padding, layer.dilation
    expected = F.conv2d(x, layer.weight, layer.bias, *geometry)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


def test_mask_and_strength_multiply():
    torch.manual_seed(0)
    layer, x = GroupedConv2d(2, 2, 1, bias=False), torch.randn(2, 2, 3, 3)
    mask = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    strength = torch.tensor([[[0.5, 9.0]], [[2.0, 3.0]]])
    expected = F.conv2d(x * torch.tensor([[0.5, 0.0], [2.0, 3.0]])[..., None, None], layer.weight)
    torch.testing.assert_close(layer(x, Gate(mask, strength)), expected)


def test_gate_hook_gets_layer_gate_input_and_output():
    layer, calls = GroupedConv2d(4, 4, 1), []
    layer.register_gate_hook(lambda *args: calls.append(args))
    x, gate = torch.randn(2, 4, 3, 3), half_open(2, 2, 4)
    y = layer(x, gate)
    assert len(calls) == 1
    assert all(got is given for got, given in zip(calls[0], (layer, gate, x, y), strict=True))


def test_gate_hook_is_removed_by_its_handle():
    layer, calls = GroupedConv2d(4, 4, 1), []
    handle = layer.register_gate_hook(lambda *_: calls.append('removed'))
    layer.register_gate_hook(lambda *_: calls.append('kept'))
    handle.remove()
    layer(torch.randn(2, 4, 3, 3), half_open(2, 1, 4))
    assert calls == ['kept']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(groups=2), 'groups=2 of a gated convolution, expected 1'),
        (dict(padding_mode='reflect'), "padding_mode='reflect', expected 'zeros'"),
    ],
)
def test_refuses_what_it_cannot_honour(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupedConv2d(4, 4, 3, **arguments)


def test_heads_that_do_not_divide_the_filters_raise():
    layer = GroupedConv2d(4, 8, 1)
    with pytest.raises(ValueError, match='heads=3 does not divide out_channels=8'):
        layer(torch.randn(2, 4, 3, 3), half_open(2, 3, 4))


@SIZES
@pytest.mark.parametrize('gate_batch', [1, 2])
def test_trains_under_autocast(size, gate_batch):
    torch.manual_seed(0)
    layer, x = GroupedConv2d(4, 8, 3), torch.randn(2, 4, size, size, requires_grad=True)
    mask = torch.rand(gate_batch, 2, 4).requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = layer(x, Gate(mask))
    assert y.dtype is torch.bfloat16
    y.float().square().sum().backward()
    for tensor in (x, mask, layer.weight, layer.bias):
        assert tensor.grad.dtype is torch.float32
        assert tensor.grad.isfinite().all()
        assert tensor.grad.count_nonzero() > 0


@SIZES
@pytest.mark.parametrize('gate_batch', [1, 2])
def test_half_precision_layer_takes_a_float32_gate(size, gate_batch):
    for dtype in (torch.float16, torch.bfloat16):
        torch.manual_seed(0)
        layer, x = GroupedConv2d(4, 8, 3), torch.randn(2, 4, size, size)
        gate = Gate(half_open(gate_batch, 2, 4).mask)
        expected = layer(x, gate)
        y = layer.to(dtype)(x.to(dtype), gate)
        assert y.dtype is dtype
        torch.testing.assert_close(y.float(), expected, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize('method', [MSGCConv2d, DGCConv2d, FLGCConv2d, SGCConv2d])
def test_a_training_step_reads_nothing_back_from_the_device(monkeypatch, method):
    def fail(tensor, *args):
        raise AssertionError('the host would wait for the device')

    # equal or ragged groups, folded or by features
    for out_channels, size in itertools.product((16, 18), (40, 4)):
        model = nn.Sequential(method(8, out_channels, 3), nn.BatchNorm2d(out_channels))
        reading = 'item', 'tolist', '__bool__', '__int__', '__float__', '__index__', 'numpy'
        with monkeypatch.context() as patch:
            for name in reading:
                patch.setattr(torch.Tensor, name, fail)
            with MacMeter(model) as meter:
                y = model(torch.randn(2, 8, size, size))
            (y.square().mean() + meter.take().ratio).backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_a_frozen_gate_takes_the_place_of_the_one_that_is_given():
    layer, x, seen = GroupedConv2d(4, 4, 1), torch.randn(2, 4, 3, 3), []
    layer.frozen = Gate(torch.tensor([[[1.0, 0, 0, 1]]]))
    expected = F.conv2d(x * layer.frozen.mask[..., None, None][0], layer.weight, layer.bias)
    layer.register_gate_hook(lambda layer, gate, x, y: seen.append(gate))
    torch.testing.assert_close(layer(x, Gate(torch.ones(2, 1, 4))), expected)
    assert seen == [layer.frozen]
