"""Channels are found where they are said to be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from mmdet_groupconv.compiler.maps import (
    FeatureMap,
    GlobalMean,
    gather,
    join,
    one_at_least,
    pixels,
    take_filters,
)
from mmdet_groupconv.compiler.memory import MapMemory

several = settings(max_examples=40, deadline=None, derandomize=True)
shapes = st.tuples(*[st.integers(1, 3)], st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
memory_formats = st.sampled_from([torch.contiguous_format, torch.channels_last])


def is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


@several
@given(shape=shapes, memory_format=memory_formats, data=st.data())
def test_gathers_any_channels_in_any_order(shape, memory_format, data):
    x = torch.randn(shape).contiguous(memory_format=memory_format)
    index = torch.tensor(data.draw(st.lists(st.integers(0, shape[1] - 1), min_size=1)))
    found = gather(x, index, MapMemory())
    assert torch.equal(found, x[:, index])
    assert is_channels_last(found)


@several
@given(shape=shapes, memory_format=memory_formats)
def test_pixels_are_rows(shape, memory_format):
    x = torch.randn(shape).contiguous(memory_format=memory_format)
    rows = pixels(x)
    assert torch.equal(rows, torch.stack([x[b, :, i, j] for b, i, j in places(shape)]))


def places(shape):
    batch, _, height, width = shape
    return [(b, i, j) for b in range(batch) for i in range(height) for j in range(width)]


def test_large_maps_are_gathered_into_the_pool(all_maps_are_large):
    memory = MapMemory()
    x = torch.randn(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    index = torch.tensor([4, 0, 4])
    found = gather(x, index, memory)
    assert torch.equal(found, x[:, index])
    assert is_channels_last(found)
    assert len(memory._buffers) == 1


@pytest.mark.parametrize('large', [False, True])
def test_joins_maps_side_by_side(large, request):
    if large:
        request.getfixturevalue('all_maps_are_large')
    parts = [
        torch.randn(2, channels, 3, 4).contiguous(memory_format=torch.channels_last)
        for channels in (2, 1, 3)
    ]
    joined = join(parts, MapMemory())
    assert torch.equal(joined, torch.cat(parts, dim=1))
    assert is_channels_last(joined)


def test_one_map_is_not_copied():
    x = torch.randn(1, 2, 3, 3)
    assert join([x], MapMemory()) is x


@several
@given(shape=shapes, memory_format=memory_formats, data=st.data())
def test_takes_any_filters(shape, memory_format, data):
    weight = torch.randn(shape).contiguous(memory_format=memory_format)
    rows = torch.tensor(data.draw(st.lists(st.integers(0, shape[0] - 1))), dtype=torch.int64)
    found = take_filters(weight, rows)
    assert torch.equal(found, weight[rows])


@given(order=st.permutations(range(6)))
@several
def test_channels_get_back_into_their_own_order(order):
    x, order = torch.randn(1, 6, 2, 3), torch.tensor(order)
    assert torch.equal(FeatureMap(x[:, order], order).in_order(6, MapMemory()), x)


@given(present=st.lists(st.integers(0, 5), unique=True, min_size=1))
@several
def test_positions_say_where_a_channel_lies(present):
    channels = torch.tensor(present)
    y = FeatureMap(torch.randn(1, len(present), 2, 2), channels)
    assert y.positions(6)[channels].tolist() == list(range(len(present)))


@given(read=arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 5))))
@several
def test_at_least_the_first_one_is_set_in_each_row(read):
    expected = [row if any(row) else [True, *row[1:]] for row in read.tolist()]
    assert one_at_least(torch.from_numpy(read)).tolist() == expected
    assert one_at_least(torch.from_numpy(read[0])).tolist() == expected[0]


def test_what_is_set_is_left_as_it_was():
    read = torch.zeros(2, 3, dtype=torch.bool)
    one_at_least(read)
    assert not read.any()


def test_a_whole_map_is_in_order():
    x = torch.randn(1, 3, 2, 2)
    assert FeatureMap(x).positions(3) is None
    assert FeatureMap(x).in_order(3, MapMemory()) is x


@several
@given(shape=shapes, memory_format=memory_formats, data=st.data())
def test_matrix_pooling_is_global_average_pooling(shape, memory_format, data):
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=memory_format)
    expected = nn.AdaptiveAvgPool2d(1)(x)
    torch.testing.assert_close(GlobalMean()(x), expected)
    order = torch.tensor(data.draw(st.permutations(range(shape[1]))))
    torch.testing.assert_close(GlobalMean(order)(x), expected[:, order])
