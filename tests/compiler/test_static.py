"""Static layers compute the same in every way."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.compiler import static
from mmdet_groupconv.compiler.fused import RELU, Geometry
from mmdet_groupconv.compiler.maps import FeatureMap
from mmdet_groupconv.compiler.memory import MapMemory
from mmdet_groupconv.compiler.static import StaticConv

TOLERANCE = {torch.float32: dict(rtol=1e-4, atol=1e-4), torch.float64: dict(rtol=1e-9, atol=1e-9)}
POINTS = Geometry((1, 1), (0, 0), (1, 1))  # of 1x1 filters
several = settings(max_examples=60, deadline=None, derandomize=True)


def draw_layer(data):
    """A layer parted in a way that was drawn, and its dense weight and bias."""

    def draw(low, high):
        return data.draw(st.integers(low, high))

    torch.manual_seed(draw(0, 99))
    filters, channels, kernel, geometry = draw(1, 6), draw(1, 6), (1, 1), POINTS
    if data.draw(st.booleans()):
        kernel = draw(1, 3), draw(1, 3)
        geometry = Geometry(
            (draw(1, 2), draw(1, 2)),
            (draw(0, kernel[0] - 1), draw(0, kernel[1] - 1)),
            (draw(1, 2), draw(1, 2)),
        )
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    weight = torch.randn(filters, channels, *kernel, dtype=dtype)
    bias = torch.randn(filters, dtype=dtype)
    patterns = torch.rand(3, channels) > 0.5
    patterns[0] &= data.draw(st.booleans())  # some filters read nothing at all
    connections = patterns[torch.randint(3, (filters,))] * torch.rand(filters, 1)
    layer = StaticConv(weight, bias, geometry, RELU, connections)
    return layer, weight * connections.to(dtype)[..., None, None], bias, dtype


def parted(layer, data):
    """The layer, whose bundles are not the ones that pay but any that are drawn."""
    labels = data.draw(
        st.lists(st.integers(0, 3), min_size=len(layer.weight), max_size=len(layer.weight))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static, 'bundlings', lambda connected, area: [np.array(labels)])
        layer._ways()
    return layer


def a_map(channels, dtype, batch=2):
    x = torch.randn(batch, channels, 6, 7, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


@several
@given(data=st.data())
def test_any_bundles_compute_the_convolution(take_form, data):
    layer, weight, bias, dtype = draw_layer(data)
    x = a_map(layer.in_channels, dtype)
    y = take_form(parted(layer, data), 0)(FeatureMap(x), None, None, None)
    expected = F.relu(F.conv2d(x, weight, bias, *layer.geometry))
    found = y.in_order(layer.out_channels, MapMemory())
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])


@several
@given(data=st.data())
def test_any_bundles_are_added_in_place(take_form, data):
    layer, weight, bias, dtype = draw_layer(data)
    x = a_map(layer.in_channels, dtype)
    y = F.conv2d(x, weight, bias, *layer.geometry)
    out = torch.randn_like(y).contiguous(memory_format=torch.channels_last)
    expected = F.relu(out + y)
    found = take_form(parted(layer, data), 0)(FeatureMap(x), None, None, out)
    assert found.data.data_ptr() == out.data_ptr()
    torch.testing.assert_close(out, expected, **TOLERANCE[dtype])


@several
@given(data=st.data())
def test_the_input_may_lack_channels_that_nobody_reads(take_form, data):
    layer, weight, bias, dtype = draw_layer(data)
    x, reads = a_map(layer.in_channels, dtype), layer.reads(None, None)
    order = data.draw(st.permutations(range(layer.in_channels)))
    there = [c for c in order if reads[c] or data.draw(st.booleans())] or order[:1]
    there = torch.tensor(there)
    layer = take_form(parted(layer, data), 0)
    y = layer(FeatureMap(x[:, there], there), None, None, None)
    expected = F.relu(F.conv2d(x, weight, bias, *layer.geometry))
    found = y.in_order(layer.out_channels, MapMemory())
    torch.testing.assert_close(found, expected, **TOLERANCE[dtype])


@several
@given(data=st.data())
def test_outputs_that_are_left_after_dropping_are_the_same(take_form, data):
    layer, weight, bias, dtype = draw_layer(data)
    needed = torch.tensor([data.draw(st.booleans()) for _ in range(layer.out_channels)])
    needed[data.draw(st.integers(0, layer.out_channels - 1))] = True
    layer.drop(needed)
    assert len(layer.weight) == len(layer.bias) == int(needed.sum())
    x = a_map(layer.in_channels, dtype)
    y = take_form(parted(layer, data), 0)(FeatureMap(x), None, needed, None)
    expected = F.relu(F.conv2d(x, weight, bias, *layer.geometry))
    channels = torch.arange(layer.out_channels) if y.channels is None else y.channels
    assert channels.sort().values.tolist() == needed.nonzero()[:, 0].tolist()
    torch.testing.assert_close(y.data, expected[:, channels], **TOLERANCE[dtype])


def test_native_groups_read_their_channels_in_any_order():
    torch.manual_seed(0)
    geometry = POINTS._replace(groups=2)
    layer = StaticConv(torch.randn(6, 2, 1, 1), torch.randn(6), geometry, RELU)
    x, order = a_map(4, torch.float32), torch.tensor([2, 0, 3, 1])
    found = layer(FeatureMap(x[:, order], order), None, None, None).data
    expected = F.relu(F.conv2d(x, layer.weight, layer.bias, groups=2))
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float32])


def groups_of(filters, channels, groups):
    return (torch.arange(filters)[:, None] % groups == torch.arange(channels) % groups).float()


def a_layer(filters, channels, connections=None, kernel=3):
    geometry = POINTS._replace(padding=(kernel // 2, kernel // 2))
    weight = torch.randn(filters, channels, kernel, kernel)
    return StaticConv(weight, torch.randn(filters), geometry, RELU, connections)


def test_reads_what_a_filter_reads():
    connections = torch.tensor([[1.0, 0, 0, 0.5], [0, 0, 0, 2]])
    assert a_layer(2, 4, connections).reads(None, None).tolist() == [True, False, False, True]
    assert a_layer(2, 4).reads(None, None) is None


def test_dropped_filters_read_nothing():
    layer = a_layer(3, 3, torch.eye(3))
    layer.drop(torch.tensor([True, False, True]))
    assert layer.reads(None, None).tolist() == [True, False, True]


def test_a_convolution_that_its_host_groups_drops_nothing():
    geometry = Geometry((1, 1), (0, 0), (1, 1), 2)
    layer = StaticConv(torch.randn(4, 2, 1, 1), torch.randn(4), geometry, RELU)
    layer.drop(torch.tensor([True, False, True, True]))
    assert len(layer.weight) == 4


@torch.no_grad()
def test_a_convolution_that_its_host_groups_is_run_as_it_is():
    geometry = Geometry((1, 1), (1, 1), (1, 1), 2)
    weight, bias = torch.randn(6, 2, 3, 3), torch.randn(6)
    layer, x = StaticConv(weight, bias, geometry, RELU), a_map(4, torch.float32)
    y = layer(FeatureMap(x), None, None, None)
    expected = F.relu(F.conv2d(x, weight, bias, *geometry))
    torch.testing.assert_close(y.data, expected, rtol=1e-4, atol=1e-4)


def test_groups_are_convolved_with_their_own_channels_alone(take_form, convolved):
    layer = take_form(a_layer(64, 64, groups_of(64, 64, 4)), 1)
    layer(FeatureMap(a_map(64, torch.float32)), None, None, None)
    assert convolved == [(16, 16, 3, 3)] * 4


def test_the_first_way_is_one_convolution(take_form, convolved):
    layer = take_form(a_layer(64, 64, groups_of(64, 64, 4)), 0)
    layer(FeatureMap(a_map(64, torch.float32)), None, None, None)
    assert convolved == [(64, 64, 3, 3)]


def test_one_convolution_leaves_out_channels_that_no_filter_reads(take_form, convolved):
    connections = torch.ones(4, 6)
    connections[:, 2:5] = 0
    layer = take_form(a_layer(4, 6, connections), 0)
    layer(FeatureMap(a_map(6, torch.float32)), None, None, None)
    assert convolved == [(4, 3, 3, 3)]


@pytest.mark.parametrize('added', [False, True])
def test_filters_that_read_nothing_give_their_bias(added):
    layer, out = a_layer(4, 3, torch.zeros(4, 3)), torch.zeros(2, 4, 6, 7) if added else None
    y = layer(FeatureMap(a_map(3, torch.float32)), None, None, out).data
    torch.testing.assert_close(y, F.relu(layer.bias)[:, None, None].expand(2, 4, 6, 7))


@pytest.mark.parametrize('kernel', [1, 3])
def test_weights_of_ways_that_lost_are_not_kept(kernel, many_bundles):
    layer = a_layer(16, 16, torch.rand(16, 16) > 0.5, kernel)
    for _ in range(3):
        layer(FeatureMap(a_map(16, torch.float32)), None, None, None)
    assert len(layer._ways()) > 1
    assert list(layer._kept) == list(layer.forms.chosen.values())


def test_weights_of_a_way_are_made_once(take_form, many_bundles, monkeypatch):
    layer, x = a_layer(8, 8, groups_of(8, 8, 2), kernel=1), FeatureMap(a_map(8, torch.float32))
    expected = take_form(layer, 1)(x, None, None, None)
    assert len(layer._ways()) == 2
    monkeypatch.delattr(StaticConv, '_bundles')
    y = take_form(layer, 1)(x, None, None, None)
    torch.testing.assert_close(y.data, expected.data, **TOLERANCE[torch.float32])


def test_weights_take_no_memory_from_the_pool(all_maps_are_large):
    layer = a_layer(64, 64, groups_of(64, 64, 4))
    layer._bundles(1)
    assert layer.memory._buffers == []


def test_another_precision_takes_effect_after_use():
    layer = a_layer(8, 8, groups_of(8, 8, 2))
    layer(FeatureMap(a_map(8, torch.float32)), None, None, None)
    layer.double()
    x = a_map(8, torch.float64)
    y = layer(FeatureMap(x), None, None, None).in_order(8, MapMemory())
    expected = F.relu(F.conv2d(x, layer.weight, layer.bias, *layer.geometry))
    torch.testing.assert_close(y, expected, **TOLERANCE[torch.float64])


def test_all_filters_are_there_where_an_image_alone_needed_some():
    layer = StaticConv(torch.randn(8, 4, 1, 1), torch.randn(8), POINTS, RELU)
    x = torch.randn(1, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    needed = torch.arange(8) != 3  # more than three quarters: remembered as if all were
    key = x.device.type, x.dtype, (x.numel() // 4).bit_length(), 4
    layer.forms.chosen[key] = static._READ
    assert layer(FeatureMap(x), None, needed, None).data.size(1) == 7
    y = layer(FeatureMap(x), None, None, None)
    torch.testing.assert_close(y.data, F.relu(F.conv2d(x, layer.weight, layer.bias)))
