"""Later convolutions tell earlier ones what they need."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmdet_groupconv.compiler.chain import Chain
from mmdet_groupconv.compiler.folding import units_of
from mmdet_groupconv.compiler.fused import RELU, Geometry
from mmdet_groupconv.compiler.gated import GatedConv, SelfGatedConv
from mmdet_groupconv.compiler.static import StaticConv
from mmdet_groupconv.compiler.unit import DepthwiseConv
from mmdet_groupconv.layers import DGCConv2d, Gate, MSGCConv2d

CLOSE = dict(rtol=1e-9, atol=1e-9)
SAME = Geometry((1, 1), (1, 1), (1, 1))
HALF = Geometry((2, 2), (1, 1), (1, 1))
POINTS = Geometry((1, 1), (0, 0), (1, 1))  # of 1x1 filters
several = settings(max_examples=60, deadline=None, derandomize=True)


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def weight_of(filters, channels, geometry):
    size = 1 if geometry is POINTS else 3
    return randn(filters, channels, size, size)


def static(channels, filters, connections=None, geometry=SAME):
    weight = weight_of(filters, channels, geometry)
    return StaticConv(weight, randn(filters), geometry, RELU, connections)


def gated(channels, filters, heads, geometry=SAME):
    groups = torch.arange(filters) * heads // filters
    weight = weight_of(filters, channels, geometry)
    return GatedConv(weight, randn(filters), geometry, RELU, groups)


def depthwise(channels):
    geometry = SAME._replace(groups=channels)
    return DepthwiseConv(randn(channels, 1, 3, 3), randn(channels), geometry, RELU)


def a_gate(batch, heads, channels, share=0.5):
    mask = (torch.rand(batch, heads, channels) < share).double()
    return Gate(mask, randn(batch, heads, channels))


@torch.no_grad()
def by_definition(x, units, gates, out=None):
    """Image by image, unit by unit, every channel computed."""
    images = []
    for i in range(len(x)):
        y = x[i : i + 1]
        for unit, gate in zip(units, gates, strict=True):
            weight = unit.weight
            if gate is not None:
                weight = weight * gate.value[i][unit.groups][..., None, None]
            last = unit is units[-1] and out is not None
            y = F.conv2d(y, weight, unit.bias, *unit.geometry)
            y = F.relu(y + out[i : i + 1] if last else y)
        images.append(y)
    return torch.cat(images)


def draw_units(data, batch):
    channels, units, gates = data.draw(st.integers(1, 5)), [], []
    first = channels
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(['dense', 'sparse', 'gated', 'depthwise']))
        filters = data.draw(st.integers(1, 6))
        geometry = data.draw(st.sampled_from([SAME, HALF, POINTS]))
        gate = None
        if kind == 'dense':
            unit = static(channels, filters, geometry=geometry)
        elif kind == 'sparse':
            unit = static(channels, filters, torch.rand(filters, channels) > 0.6, geometry)
        elif kind == 'gated':
            heads = data.draw(st.integers(1, filters))
            unit, gate = gated(channels, filters, heads, geometry), a_gate(batch, heads, channels)
        elif channels > 1:
            unit = depthwise(channels)
        else:
            continue
        units.append(unit)
        gates.append(gate)
        channels = unit.out_channels
    return first, units or [static(channels, 2)], gates or [None]


@several
@given(
    data=st.data(),
    batch=st.integers(1, 3),
    added=st.booleans(),
    position=st.sampled_from([None, 0, 1, -1]),
)
def test_any_chain_computes_what_its_units_do(data, batch, added, position, take_form):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    channels, units, gates = draw_units(data, batch)
    x = randn(batch, channels, 7, 6)
    out = randn(*by_definition(x, units, gates).shape) if added else None
    expected = by_definition(x, units, gates, out)  # before the chain drops filters
    chain = Chain(units)
    if position is not None:
        take_form(chain, position)
    torch.testing.assert_close(chain(x, gates, out), expected, **CLOSE)
    if added:
        torch.testing.assert_close(out, expected, **CLOSE)


def test_static_filters_that_nobody_reads_are_dropped_for_good():
    connections = torch.zeros(4, 6)
    connections[:, [1, 4]] = 1
    first, second = static(3, 6), static(6, 4, connections)
    Chain([first, second])
    assert first.weight.shape == (2, 3, 3, 3)
    assert first.filters.tolist() == [1, 4]


def test_filters_are_dropped_through_depthwise_convolutions():
    connections = torch.zeros(4, 6)
    connections[:, 5] = 1
    first, last = static(3, 6), static(6, 4, connections)
    chain = Chain([first, depthwise(6), last])
    assert len(first.weight) == 1
    assert chain(randn(1, 3, 5, 5)).shape == (1, 4, 5, 5)


def test_what_is_dropped_needs_nothing_itself():
    reads_one = torch.eye(6)[[2]]
    first, second = static(3, 6), static(6, 6, torch.eye(6))
    Chain([first, second, static(6, 1, reads_one)])
    assert first.filters.tolist() == second.filters.tolist() == [2]


def test_one_filter_is_left_where_nobody_reads_any():
    first, second = static(3, 6), static(6, 4, torch.zeros(4, 6))
    y = Chain([first, second])(randn(1, 3, 5, 5))
    assert len(first.weight) == 1
    torch.testing.assert_close(y, F.relu(second.bias)[:, None, None].expand_as(y))


def test_the_last_unit_drops_nothing():
    last = static(3, 6)
    Chain([last])
    assert len(last.weight) == 6


def test_what_images_decide_about_is_not_dropped():
    first = static(3, 6)
    Chain([first, gated(6, 4, 2)])
    assert len(first.weight) == 6


def test_filters_that_no_head_reads_are_not_computed_for_that_image(take_form, convolved):
    first, second, third = gated(4, 6, 1), gated(6, 8, 2), gated(8, 3, 1)
    gates = [
        Gate(torch.tensor([[[1.0, 0, 1, 1]]])),  # 3 of 4 channels
        Gate(torch.tensor([[[1.0, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0]]])),  # 3 of 6, 2 a head
        Gate(torch.tensor([[[1.0, 1, 1, 0, 0, 0, 1, 0]]])),  # 3 filters of a head and 1
    ]
    chain = take_form(Chain([first, second, third]), 0)
    chain(randn(1, 4, 5, 5), gates)
    assert convolved == [(3, 3, 3, 3), (3, 2, 3, 3), (1, 2, 3, 3), (3, 4, 3, 3)]


def test_what_only_sleeping_heads_read_is_not_computed(take_form, convolved):
    gates = [
        Gate(torch.ones(1, 1, 4)),
        Gate(torch.tensor([[[1.0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 0]]])),
        Gate(torch.tensor([[[1.0, 1, 1, 1, 0, 0, 0, 0]]])),  # of the first head alone
    ]
    chain = take_form(Chain([gated(4, 6, 1), gated(6, 8, 2), gated(8, 3, 1)]), 0)
    chain(randn(1, 4, 5, 5), gates)
    assert convolved == [(2, 4, 3, 3), (4, 2, 3, 3), (3, 4, 3, 3)]


def test_dense_filters_that_no_head_reads_are_not_computed_for_that_image(take_form, convolved):
    reader, x = gated(6, 4, 2, POINTS), randn(1, 4, 5, 5)
    units = [static(4, 6, geometry=POINTS), depthwise(6), reader]
    gate = Gate(torch.tensor([[[1.0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0]]]).double())  # 3 of 6
    expected = by_definition(x, units, [None, None, gate._replace(strength=gate.mask)])
    chain = Chain(units)
    take_form(chain, 0)
    units[0].forms.position = -1  # the last form: those that are needed
    torch.testing.assert_close(chain(x, [None, None, gate]), expected, **CLOSE)
    assert convolved[:2] == [(3, 4, 1, 1), (3, 1, 3, 3)]


@pytest.mark.parametrize('position', [0, 1])
def test_closed_gates_compute_one_filter_and_are_exact(position, take_form):
    units = [gated(4, 6, 1), gated(6, 8, 2), gated(8, 3, 1)]
    gates = [a_gate(2, unit.groups[-1] + 1, unit.in_channels, share=0) for unit in units]
    x = randn(2, 4, 5, 5)
    expected = by_definition(x, units, gates)
    y = take_form(Chain(units), position)(x, gates)
    torch.testing.assert_close(y, expected, **CLOSE)


def test_images_are_gated_one_by_one():
    chain, gate, x = Chain([gated(4, 6, 2)]), a_gate(3, 2, 4), randn(3, 4, 5, 5)
    alone = [
        chain(x[i : i + 1], [Gate(gate.mask[i : i + 1], gate.strength[i : i + 1])])
        for i in range(3)
    ]
    torch.testing.assert_close(chain(x, [gate]), torch.cat(alone), **CLOSE)


def test_the_inputs_memory_format_does_not_matter():
    chain, x = Chain([static(3, 4), static(4, 2)]), randn(2, 3, 5, 4)
    y = chain(x)
    assert torch.equal(chain(x.contiguous(memory_format=torch.channels_last)), y)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_the_input_is_left_as_it_was():
    chain, x = Chain([gated(3, 4, 1), static(4, 2)]), randn(2, 3, 5, 4)
    before = x.clone()
    chain(x, [a_gate(2, 1, 3), None])
    assert torch.equal(x, before)


@pytest.mark.parametrize('kind', [MSGCConv2d, DGCConv2d, nn.Conv2d])
def test_no_images_give_no_outputs(kind):
    layer = kind(8, 6, 3, stride=2, padding=1).eval()
    x = torch.randn(0, 8, 9, 6)
    assert Chain(units_of(layer))(x).shape == layer(x).shape == (0, 6, 5, 3)


def test_no_images_are_added_to_none():
    out = torch.zeros(0, 6, 9, 6)
    assert (
        Chain(units_of(MSGCConv2d(8, 6, 3, padding=1)))(torch.randn(0, 8, 9, 6), None, out) is out
    )


def dgc(channels, filters, heads):
    layer = DGCConv2d(channels, filters, 1, heads=heads, gate_factor=0.4)
    layer.set_progress(1)
    last = layer.saliency.fc2
    for tensor in (layer.norm.running_mean, layer.norm.bias, last.weight, last.bias):
        nn.init.normal_(tensor)
    return layer.double().eval()


def dgc_units(*layers):
    return [unit for layer in layers for unit in units_of(layer, None, RELU)]


@pytest.mark.parametrize('position', [0, 1])
@torch.no_grad()
def test_the_order_of_heads_is_pushed_into_the_next_layer(position, take_form):
    torch.manual_seed(0)
    layers = dgc(6, 8, 2), dgc(8, 9, 3), dgc(9, 4, 2)
    units = dgc_units(*layers)
    x = randn(2, 6, 5, 5)
    expected = x
    for layer in layers:
        expected = F.relu(layer(expected))
    found = take_form(Chain(units), position)(x)
    convs = [unit for unit in units if isinstance(unit, SelfGatedConv)]
    assert [unit.order is None for unit in convs] == [True, True, False]
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize('position', [0, 1])
@torch.no_grad()
def test_the_order_of_heads_goes_through_depthwise_convolutions(position, take_form):
    torch.manual_seed(0)
    first, last, between = dgc(6, 8, 2), dgc(8, 4, 2), depthwise(8)
    x = randn(2, 6, 5, 5)
    y = F.conv2d(F.relu(first(x)), between.weight, between.bias, *between.geometry)
    expected = F.relu(last(F.relu(y)))
    found = take_form(Chain([*dgc_units(first), between, *dgc_units(last)]), position)(x)
    torch.testing.assert_close(found, expected, **CLOSE)


class OwnPooling(MSGCConv2d):
    def gate(self, x):
        return self.decide(x.amax(dim=(2, 3), keepdim=True))


@torch.no_grad()
def test_a_gate_that_looks_at_the_map_itself_sees_its_channels_in_order():
    torch.manual_seed(0)
    first, second = DGCConv2d(8, 8, 1, heads=4, pre_norm=False), OwnPooling(8, 8, 1)
    nn.init.normal_(second.maskgen.conv[3].weight)
    nn.init.normal_(second.maskgen.conv[3].bias)
    layers = nn.Sequential(first, second).double().eval()
    x = randn(2, 8, 5, 4)
    fast = Chain([unit for layer in layers for unit in units_of(layer)])
    torch.testing.assert_close(fast(x), layers(x), **CLOSE)
