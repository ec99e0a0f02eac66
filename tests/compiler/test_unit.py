"""Steps that look at each channel for itself."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.compiler.fused import NONE, RELU, RELU6, Geometry
from mmdet_groupconv.compiler.maps import FeatureMap
from mmdet_groupconv.compiler.memory import MapMemory
from mmdet_groupconv.compiler.unit import DepthwiseConv, Normalise

CHANNELS = 6
CLOSE = dict(rtol=1e-9, atol=1e-9)
several = settings(max_examples=40, deadline=None, derandomize=True)
some_channels = st.lists(st.integers(0, CHANNELS - 1), unique=True, min_size=1)


def a_map(batch=2, dtype=torch.float64):
    x = torch.randn(batch, CHANNELS, 4, 5, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def a_norm(dtype=torch.float64):
    return Normalise(torch.randn(CHANNELS, dtype=dtype), torch.randn(CHANNELS, dtype=dtype))


def normalised(x, norm):
    return F.relu(x * norm.scale[:, None, None] + norm.shift[:, None, None])


@several
@given(channels=some_channels)
def test_normalises_the_channels_that_are_there(channels):
    x, norm, channels = a_map(), a_norm(), torch.tensor(channels)
    y = norm(FeatureMap(x[:, channels], channels), None, None, None)
    torch.testing.assert_close(y.data, normalised(x, norm)[:, channels], **CLOSE)
    assert torch.equal(y.channels, channels)


def test_normalises_whole_maps_and_leaves_them_as_they_were():
    x, norm = a_map(), a_norm()
    before = x.clone()
    y = norm(FeatureMap(x), None, None, None)
    torch.testing.assert_close(y.data, normalised(x, norm), **CLOSE)
    assert y.channels is None
    assert torch.equal(x, before)


@pytest.mark.parametrize('batch', [1, 2])
def test_normalises_maps_that_are_not_channels_last(batch):
    x, norm = a_map(batch).contiguous(), a_norm()
    y = norm(FeatureMap(x), None, None, None)
    torch.testing.assert_close(y.data, normalised(x, norm), **CLOSE)


def test_normalises_large_maps_in_the_pools_memory(all_maps_are_large):
    x, norm = a_map(dtype=torch.float32), a_norm(torch.float32)
    norm.memory = MapMemory()
    y = norm(FeatureMap(x), None, None, None)
    torch.testing.assert_close(y.data, normalised(x, norm))
    assert len(norm.memory._buffers) == 1


@several
@given(order=st.permutations(range(CHANNELS)))
def test_a_norm_can_take_its_input_in_another_order(order):
    x, norm, order = a_map(), a_norm(), torch.tensor(order)
    expected = normalised(x, norm)[:, order]
    norm.expect(order)
    y = norm(FeatureMap(x[:, order]), None, None, None)
    torch.testing.assert_close(y.data, expected, **CLOSE)


@pytest.mark.parametrize('make', ['norm', 'depthwise'])
def test_needs_the_channels_that_are_needed_of_it(make):
    unit = a_norm() if make == 'norm' else a_depthwise(NONE)
    needed = torch.rand(CHANNELS) > 0.5
    assert unit.reads(None, needed) is needed
    assert unit.reads(None, None) is None


GEOMETRIES = {
    '3x3': ((3, 3), (1, 1), (1, 1), (1, 1)),
    'strided': ((3, 3), (2, 2), (1, 1), (1, 1)),
    'dilated': ((3, 3), (1, 1), (2, 2), (2, 2)),
    'unequal': ((3, 1), (1, 2), (1, 0), (1, 1)),
}


def a_depthwise(activation, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)):
    weight = torch.randn(CHANNELS, 1, *kernel, dtype=torch.float64)
    bias = torch.randn(CHANNELS, dtype=torch.float64)
    return DepthwiseConv(weight, bias, Geometry(stride, padding, dilation, CHANNELS), activation)


def convolved_by_channel(x, unit):
    return F.conv2d(x, unit.weight, unit.bias, *unit.geometry)


@pytest.mark.parametrize('geometry', GEOMETRIES)
@several
@given(channels=some_channels)
def test_filters_the_channels_that_are_there(geometry, channels):
    x, unit, channels = a_map(), a_depthwise(RELU6, *GEOMETRIES[geometry]), torch.tensor(channels)
    y = unit(FeatureMap(x[:, channels], channels), None, None, None)
    torch.testing.assert_close(y.data, F.relu6(convolved_by_channel(x, unit))[:, channels], **CLOSE)
    assert torch.equal(y.channels, channels)


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_filters_whole_maps(geometry):
    x, unit = a_map(), a_depthwise(RELU, *GEOMETRIES[geometry])
    y = unit(FeatureMap(x), None, None, None)
    torch.testing.assert_close(y.data, F.relu(convolved_by_channel(x, unit)), **CLOSE)
    assert y.channels is None


@several
@given(order=st.permutations(range(CHANNELS)))
def test_filtered_channels_are_added_in_their_own_order(order):
    x, unit, order = a_map(), a_depthwise(RELU), torch.tensor(order)
    out = torch.randn(2, CHANNELS, 4, 5, dtype=torch.float64)
    expected = F.relu(out + convolved_by_channel(x, unit))
    y = unit(FeatureMap(x[:, order], order), None, None, out)
    assert y.data.data_ptr() == out.data_ptr()
    torch.testing.assert_close(out, expected, **CLOSE)
