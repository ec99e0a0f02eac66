"""Bundles compute what each of their filters does."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.compiler import bundles
from mmdet_groupconv.compiler.bundles import Bundle, Bundles
from mmdet_groupconv.compiler.fused import NONE, RELU, RELU6, Geometry
from mmdet_groupconv.compiler.maps import FeatureMap
from mmdet_groupconv.compiler.memory import MapMemory

POINTS = Geometry((1, 1), (0, 0), (1, 1))  # of 1x1 filters
ACTIVATIONS = {NONE: lambda y: y, RELU: lambda y: y.clamp(min=0), RELU6: lambda y: y.clamp(0, 6)}
TOLERANCE = {torch.float32: dict(rtol=1e-4, atol=1e-4), torch.float64: dict(rtol=1e-9, atol=1e-9)}
several = settings(max_examples=40, deadline=None, derandomize=True)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


class Case:
    """Bundles and a map that were drawn, and the outputs by definition, before the activation."""

    def __init__(self, data):
        self.data = data
        torch.manual_seed(self.draw(0, 99))
        self.dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
        self.total = self.draw(1, 6)
        kernel, self.geometry = self._window()
        self.activation = data.draw(st.sampled_from(list(ACTIVATIONS)))
        self.parts = [self._bundle(kernel) for _ in range(self.draw(1, 3))]
        self.filters = sum(len(part.bias) for part in self.parts)
        self.order = None
        if data.draw(st.booleans()):
            self.order = torch.randperm(self.filters)
        self.bundles = Bundles(self.parts, self.order, self.geometry, self.activation)
        shape = self.draw(1, 2), self.total, self.draw(3, 6), self.draw(3, 6)
        self.x = channels_last(torch.randn(shape, dtype=self.dtype))
        self.plain = self._by_definition()

    def draw(self, low, high):
        return self.data.draw(st.integers(low, high))

    def _window(self):
        if self.data.draw(st.booleans()):
            return (1, 1), POINTS
        kernel = self.draw(1, 3), self.draw(1, 3)
        padding = self.draw(0, kernel[0] - 1), self.draw(0, kernel[1] - 1)
        stride = self.draw(1, 2)  # oneDNN itself errs on (1, 2) for some maps of one channel
        return kernel, Geometry((stride, stride), padding, (1, 1))

    def _bundle(self, kernel):
        channels = torch.randperm(self.total)[: self.draw(1, self.total)]
        if self.data.draw(st.booleans()):
            channels = None
        read, filters = self.total if channels is None else len(channels), self.draw(1, 3)
        weight = torch.randn(filters, read, *kernel, dtype=self.dtype)
        return Bundle(channels, channels_last(weight), torch.randn(filters, dtype=self.dtype))

    def _by_definition(self):
        filters = []
        for channels, weight, bias in self.parts:
            read = range(self.total) if channels is None else channels.tolist()
            for windows, shift in zip(weight.double(), bias.double(), strict=True):
                y = shift
                for channel, window in zip(read, windows, strict=True):
                    one = self.x[:, channel : channel + 1].double()
                    y = y + F.conv2d(one, window[None, None], None, *self.geometry)
                filters.append(y)
        plain = torch.empty(len(self.x), self.filters, *filters[0].shape[2:], dtype=torch.float64)
        for position, y in enumerate(filters):
            place = position if self.order is None else int(self.order[position])
            plain[:, place : place + 1] = y
        return plain

    def a_sum(self):
        """What to add onto, channels-last."""
        return channels_last(torch.randn(self.plain.shape, dtype=self.dtype))

    def expected(self, out=0):
        return ACTIVATIONS[self.activation](self.plain + out).to(self.dtype)

    def run(self, x=None, out=None):
        x = FeatureMap(self.x) if x is None else x
        return self.bundles.run(x, self.total, out, MapMemory())

    def check(self, found, expected):
        torch.testing.assert_close(found, expected, **TOLERANCE[self.dtype])


@several
@given(data=st.data())
def test_outputs_equal_the_definition(data):
    case = Case(data)
    y = case.run()
    assert y.channels is case.order
    case.check(y.in_order(case.filters, MapMemory()), case.expected())


@several
@given(data=st.data())
def test_outputs_are_added_in_place(data):
    case = Case(data)
    out = case.a_sum()
    expected = case.expected(out)
    y = case.run(out=out)
    assert y.data.data_ptr() == out.data_ptr()
    assert y.channels is None
    case.check(out, expected)


@several
@given(data=st.data())
def test_what_is_added_onto_may_have_any_layout(data):
    case = Case(data)
    out = case.a_sum().contiguous()
    expected = case.expected(out)
    y = case.run(out=out)
    assert y.data.data_ptr() == out.data_ptr()
    case.check(out, expected)


@pytest.mark.parametrize('added', [False, True])
@several
@given(data=st.data())
def test_the_map_may_be_in_any_order_and_lack_channels_that_nobody_reads(added, data):
    case = Case(data)
    read = {
        channel
        for part in case.parts
        for channel in (range(case.total) if part.channels is None else part.channels.tolist())
    }
    order = data.draw(st.permutations(range(case.total)))
    there = torch.tensor([c for c in order if c in read or data.draw(st.booleans())])
    out = case.a_sum() if added else None
    expected = case.expected(out if added else 0)
    y = case.run(FeatureMap(channels_last(case.x[:, there]), there), out)
    case.check(y.in_order(case.filters, MapMemory()), expected)


@pytest.mark.parametrize('added', [False, True])
@several
@given(data=st.data())
def test_the_map_is_left_as_it_was(added, data):
    case = Case(data)
    before = case.x.clone()
    case.run(out=case.a_sum() if added else None)
    assert torch.equal(case.x, before)


def a_map(channels):
    return channels_last(torch.randn(1, channels, 6, 7))


def a_bundle(filters, channels, size):
    return Bundle(channels, torch.randn(filters, size, 1, 1), torch.randn(filters))


def arguments(function, monkeypatch):
    """What a function of the module is called with from now on."""
    calls, original = [], getattr(bundles, function)

    def spy(*args):
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(bundles, function, spy)
    return calls


def test_weights_are_put_in_another_order_where_all_that_is_there_is_read(monkeypatch):
    calls = arguments('convolve', monkeypatch)
    data, there = a_map(3), torch.tensor([4, 0, 2])
    parts = Bundles([a_bundle(5, torch.tensor([0, 2, 4]), 3)], None, POINTS, RELU)
    parts.run(FeatureMap(data, there), 6, None, MapMemory())
    assert [read.data_ptr() for read, *_ in calls] == [data.data_ptr()]


def test_one_bundle_is_added_by_the_convolution_itself(monkeypatch):
    calls = arguments('convolve_onto', monkeypatch)
    parts = Bundles([a_bundle(5, torch.tensor([1, 2]), 2)], None, POINTS, RELU6)
    out = channels_last(torch.zeros(1, 5, 6, 7))
    parts.run(FeatureMap(a_map(3)), 3, out, MapMemory())
    assert [(call[0], call[-1]) for call in calls] == [(out, RELU6)]


@pytest.mark.parametrize('number', [1, 2])
def test_outputs_are_in_the_pools_memory(number, all_maps_are_large):
    memory = MapMemory()
    parts = Bundles([a_bundle(5, torch.tensor([1, 2]), 2)] * number, None, POINTS, RELU)
    y = parts.run(FeatureMap(a_map(3)), 3, None, memory).data
    assert y.data_ptr() in [buffer.ctypes.data for buffer in memory._buffers]
    assert y.is_contiguous(memory_format=torch.channels_last)


def lasting_bundles():
    torch.manual_seed(0)
    parts = [
        Bundle(channels, torch.randn(8, 4, 3, 3), torch.randn(8))
        for channels in (torch.arange(0, 8, 2), torch.arange(1, 8, 2))
    ]
    geometry = Geometry((1, 1), (1, 1), (1, 1))
    return [Bundles(parts, None, geometry, RELU, lasting=lasting) for lasting in (True, False)]


def a_large_map(*size):
    x = torch.randn(1, 8, *size).contiguous(memory_format=torch.channels_last)
    return FeatureMap(x)


@pytest.mark.parametrize('added', [False, True])
def test_prepared_weights_compute_the_same_for_maps_of_any_size(added):
    lasting, passing = lasting_bundles()
    for size in ((20, 24), (9, 7), (20, 24), (9, 7), (9, 7)):
        x, out = a_large_map(*size), None
        if added:
            out = torch.randn(1, 16, *size).contiguous(memory_format=torch.channels_last)
        y = lasting.run(x, 8, None if out is None else out.clone(), MapMemory()).data
        torch.testing.assert_close(
            y, passing.run(x, 8, out, MapMemory()).data, rtol=1e-5, atol=1e-5
        )


def test_prepared_weights_do_where_maps_have_another_layout():
    geometry = Geometry((1, 1), (1, 1), (1, 1))
    lasting = Bundles(
        [Bundle(None, torch.randn(8, 8, 3, 3), torch.randn(8))], None, geometry, RELU, True
    )
    x = a_large_map(6, 5)
    lasting.run(x, 8, None, MapMemory())
    expected = lasting.run(x, 8, torch.zeros_like(x.data), MapMemory()).data
    out = torch.zeros(1, 8, 6, 5)
    torch.testing.assert_close(lasting.run(x, 8, out, MapMemory()).data, expected)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_prepared_weights_can_be_copied(copied):
    lasting, _ = lasting_bundles()
    x = a_large_map(6, 5)
    lasting.run(x, 8, None, MapMemory())
    y = lasting.run(x, 8, None, MapMemory()).data
    assert torch.equal(copied(lasting).run(x, 8, None, MapMemory()).data, y)


@pytest.mark.parametrize(
    ('sizes', 'prepared'),
    [
        ([4, 5, 6, 7, 8], 0),  # of images that differ
        ([4] * 5, 1),
        ([4, 5, 6] * 5, 3),  # of a pyramid's levels
        ([4, 5, 6, 7, 8, 9] * 5, 0),  # more than are remembered
    ],
)
def test_weights_are_prepared_for_sizes_that_come_again(sizes, prepared, monkeypatch):
    calls, pack = [], bundles.packed
    monkeypatch.setattr(bundles, 'packed', lambda *args: calls.append(1) or pack(*args))
    lasting, _ = lasting_bundles()
    for size in sizes:
        lasting.run(a_large_map(size, size), 8, None, MapMemory())
    assert len(calls) == prepared * len(lasting.bundles)
