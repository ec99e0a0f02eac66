"""Fused calls compute what their parts do."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmdet_groupconv.compiler import fused
from mmdet_groupconv.compiler.fused import (
    NONE,
    RELU,
    RELU6,
    Geometry,
    activation_of,
    convolve,
    convolve_onto,
    has_fused_calls,
    output_shape,
)
from mmdet_groupconv.compiler.memory import MapMemory

CALLS = {NONE: lambda x: x, RELU: F.relu, RELU6: F.relu6}
TOLERANCE = {torch.float32: dict(rtol=1e-4, atol=1e-4), torch.float64: dict(rtol=1e-9, atol=1e-9)}
several = settings(max_examples=60, deadline=None, derandomize=True)
each_activation = pytest.mark.parametrize(
    'activation', CALLS, ids=lambda activation: activation.name
)


def draw_convolution(data):
    """x, weight, bias and geometry, of any of the shapes that a convolution may have."""

    def draw(low, high):
        return data.draw(st.integers(low, high))

    torch.manual_seed(draw(0, 99))
    groups, kernel = draw(1, 3), (draw(1, 3), draw(1, 3))
    stride, dilation = (draw(1, 2), draw(1, 2)), (draw(1, 2), draw(1, 2))
    # oneDNN itself crashes on a 1x1 convolution of which some outputs see nothing but padding.
    padding = draw(0, kernel[0] - 1), draw(0, kernel[1] - 1)
    size = [
        max(d * (k - 1) + 1 - 2 * p, 1) + draw(0, 4)
        for k, p, d in zip(kernel, padding, dilation, strict=True)
    ]
    channels = draw(1, 3)
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))  # fused, plain operations
    x = torch.randn(draw(1, 2), groups * channels, *size, dtype=dtype)
    weight = torch.randn(groups * draw(1, 3), channels, *kernel, dtype=dtype)
    bias = data.draw(st.sampled_from([None, torch.randn(len(weight), dtype=dtype)]))
    if data.draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    return x, weight, bias, Geometry(stride, padding, dilation, groups)


@several
@given(data=st.data(), activation=st.sampled_from(list(CALLS)))
def test_a_convolution_and_its_activation(data, activation):
    x, weight, bias, geometry = draw_convolution(data)
    y = convolve(x, weight, bias, geometry, activation, MapMemory())
    expected = CALLS[activation](F.conv2d(x, weight, bias, *geometry))
    torch.testing.assert_close(y, expected, **TOLERANCE[x.dtype])


@several
@given(data=st.data(), activation=st.sampled_from(list(CALLS)))
def test_a_convolution_added_in_place(data, activation):
    x, weight, bias, geometry = draw_convolution(data)
    y = F.conv2d(x, weight, bias, *geometry)
    out = torch.randn_like(y)
    if data.draw(st.booleans()):
        out = out.contiguous(memory_format=torch.channels_last)
    expected = CALLS[activation](out + y)
    convolve_onto(out, x, weight, bias, geometry, activation)
    torch.testing.assert_close(out, expected, **TOLERANCE[x.dtype])


@several
@given(data=st.data())
def test_the_shape_of_the_outputs_is_known_beforehand(data):
    x, weight, _, geometry = draw_convolution(data)
    assert output_shape(x, weight, geometry) == F.conv2d(x, weight, None, *geometry).shape


@each_activation
def test_without_fused_calls_plain_operations_do_the_same(activation, plain_calls):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, 6, 5), torch.randn(8, 4, 3, 3), torch.randn(8)
    geometry = Geometry((2, 1), (1, 1), (1, 1))
    y = F.conv2d(x, weight, bias, *geometry)
    assert not has_fused_calls(x)
    found = convolve(x, weight, bias, geometry, activation, MapMemory())
    torch.testing.assert_close(found, CALLS[activation](y))
    out = torch.randn_like(y)
    expected = CALLS[activation](out + y)
    convolve_onto(out, x, weight, bias, geometry, activation)
    torch.testing.assert_close(out, expected)


@each_activation
def test_large_maps_are_written_to_the_pools_memory(activation, all_maps_are_large):
    torch.manual_seed(0)
    memory = MapMemory()
    x, weight, bias = torch.randn(2, 4, 6, 5), torch.randn(8, 4, 3, 3), torch.randn(8)
    geometry = Geometry((1, 1), (1, 1), (1, 1))
    for _ in range(2):  # what the first one leaves behind is not added
        y = convolve(x, weight, bias, geometry, activation, memory)
        expected = CALLS[activation](F.conv2d(x, weight, bias, *geometry))
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        place = y.data_ptr()
        del y
    assert memory.empty(x, expected.shape).data_ptr() == place


def test_this_pytorch_has_the_fused_calls():
    if not torch.backends.mkldnn.is_available():
        pytest.skip('PyTorch without oneDNN')
    assert has_fused_calls(torch.zeros(1))
    assert has_fused_calls(torch.zeros(1).bfloat16()) == fused.computes_in(torch.bfloat16)


@pytest.mark.parametrize(
    'x', [torch.zeros(1, dtype=torch.float64), torch.zeros(1).half(), torch.zeros(1).to('meta')]
)
def test_fused_calls_are_for_float32_and_bfloat16_on_cpus(x):
    assert not has_fused_calls(x)


def test_fused_calls_heed_that_onednn_is_switched_off():
    with torch.backends.mkldnn.flags(enabled=False):
        assert not has_fused_calls(torch.zeros(1))


def test_what_this_pytorch_lacks_is_not_found():
    assert fused._find('_convolution_pointwise', 'some_other_overload') is None
    assert fused._find('some_other_call', 'default') is None


@pytest.mark.parametrize(
    ('module', 'activation'),
    [
        (None, NONE),
        (nn.Identity(), NONE),
        (nn.ReLU(inplace=True), RELU),
        (nn.ReLU6(), RELU6),
        (nn.SiLU(), None),
        (nn.LeakyReLU(), None),
        (nn.Hardtanh(-1, 1), None),  # ReLU6's parent
    ],
    ids=lambda value: type(value).__name__,
)
def test_activations_that_are_fused(module, activation):
    assert activation_of(module) == activation


@each_activation
def test_copies_of_an_activation_are_the_same(activation):
    assert copy.deepcopy(activation) == activation
    assert pickle.loads(pickle.dumps(activation)) == activation


def test_sum_and_relu_are_one_call_for_copies_too(monkeypatch):
    calls = []
    monkeypatch.setattr(fused, '_CONV_ADD_', lambda *args: calls.append(args))
    x, geometry = torch.zeros(1, 2, 3, 3), Geometry((1, 1), (0, 0), (1, 1))
    x = x.contiguous(memory_format=torch.channels_last)
    convolve_onto(x.clone(), x, torch.zeros(2, 2, 1, 1), None, geometry, copy.deepcopy(RELU))
    assert 'relu' in calls[0]
