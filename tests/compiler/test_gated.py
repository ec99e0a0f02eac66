"""Gated layers compute what the image needs, in every form."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.compiler import bundles
from mmdet_groupconv.compiler.folding import units_of
from mmdet_groupconv.compiler.fused import RELU, Geometry
from mmdet_groupconv.compiler.gated import GatedConv, SelfGatedConv
from mmdet_groupconv.compiler.maps import FeatureMap
from mmdet_groupconv.compiler.memory import MapMemory
from mmdet_groupconv.layers import DGCConv2d, Gate, MSGCConv2d

FORMS = {'heads': 0, 'whole': 1}
TOLERANCE = {torch.float32: dict(rtol=1e-4, atol=1e-4), torch.float64: dict(rtol=1e-9, atol=1e-9)}
POINTS = Geometry((1, 1), (0, 0), (1, 1))  # of 1x1 filters
several = settings(max_examples=60, deadline=None, derandomize=True)
each_form = pytest.mark.parametrize('form', FORMS)


class Case:
    """A layer, a gate and a map that were drawn, and the outputs by definition."""

    def __init__(self, data):
        self.data = data
        torch.manual_seed(self.draw(0, 99))
        self.dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
        self.heads = self.draw(1, 3)
        self.channels, self.filters = self.draw(1, 6), self.draw(1, 7)
        self.groups = self._groups()
        kernel, geometry = self._window()
        weight = torch.randn(self.filters, self.channels, *kernel, dtype=self.dtype)
        bias = torch.randn(self.filters, dtype=self.dtype)
        share = data.draw(st.sampled_from([0.0, 0.5, 0.5, 1.0]))
        mask = (torch.rand(1, self.heads, self.channels) < share).to(self.dtype)
        strength = data.draw(st.sampled_from([None, torch.randn_like(mask)]))
        self.gate = Gate(mask, strength, self.groups)
        self.layer = GatedConv(weight, bias, geometry, RELU, self.groups)
        x = torch.randn(1, self.channels, 6, 7, dtype=self.dtype)
        self.x = x.contiguous(memory_format=torch.channels_last)
        connections = self.gate.value[0][self.groups][..., None, None]
        self.plain = F.conv2d(self.x, weight * connections, bias, *geometry)

    def draw(self, low, high):
        return self.data.draw(st.integers(low, high))

    def _window(self):
        if self.data.draw(st.booleans()):
            return (1, 1), POINTS
        kernel = self.draw(1, 3), self.draw(1, 3)
        geometry = Geometry(
            (self.draw(1, 2), self.draw(1, 2)),
            (self.draw(0, kernel[0] - 1), self.draw(0, kernel[1] - 1)),
            (self.draw(1, 2), self.draw(1, 2)),
        )
        return kernel, geometry

    def _groups(self):
        kind = self.data.draw(st.sampled_from(['contiguous', 'interleaved', 'any']))
        filters = torch.arange(self.filters)
        if kind == 'contiguous':  # ragged where heads don't divide the filters
            return filters * self.heads // self.filters
        if kind == 'interleaved':
            return filters % self.heads
        return torch.randint(self.heads, (self.filters,))  # some heads may have no filter

    def needed(self):
        needed = torch.tensor([self.data.draw(st.booleans()) for _ in range(self.filters)])
        needed[self.draw(0, self.filters - 1)] = True
        return needed

    def check(self, y, needed):
        there = torch.arange(self.filters) if y.channels is None else y.channels
        assert there.unique().numel() == y.data.size(1)
        assert set(needed.nonzero()[:, 0].tolist()) <= set(there.tolist())
        expected = F.relu(self.plain)[:, there]
        torch.testing.assert_close(y.data, expected, **TOLERANCE[self.dtype])


@each_form
@several
@given(data=st.data())
def test_equals_the_definition(form, take_form, data):
    case = Case(data)
    y = take_form(case.layer, FORMS[form])(FeatureMap(case.x), case.gate, None, None)
    found = y.in_order(case.filters, MapMemory())
    torch.testing.assert_close(found, F.relu(case.plain), **TOLERANCE[case.dtype])


@each_form
@several
@given(data=st.data())
def test_computes_the_filters_that_are_needed(form, take_form, data):
    case = Case(data)
    needed = case.needed()
    y = take_form(case.layer, FORMS[form])(FeatureMap(case.x), case.gate, needed, None)
    case.check(y, needed)
    assert y.data.size(1) == int(needed.sum())


@each_form
@several
@given(data=st.data())
def test_is_added_in_place(form, take_form, data):
    case = Case(data)
    out = torch.randn_like(case.plain).contiguous(memory_format=torch.channels_last)
    expected = F.relu(out + case.plain)
    take_form(case.layer, FORMS[form])(FeatureMap(case.x), case.gate, None, out)
    torch.testing.assert_close(out, expected, **TOLERANCE[case.dtype])


@each_form
@several
@given(data=st.data())
def test_the_input_may_lack_channels_that_no_awake_head_reads(form, take_form, data):
    case = Case(data)
    needed = data.draw(st.sampled_from([None, case.needed()]))
    reads = case.layer.reads(case.gate, needed)
    order = data.draw(st.permutations(range(case.channels)))
    there = [c for c in order if reads[c] or data.draw(st.booleans())] or order[:1]
    there = torch.tensor(there)
    x = FeatureMap(case.x[:, there], there)
    y = take_form(case.layer, FORMS[form])(x, case.gate, needed, None)
    case.check(y, torch.ones(case.filters, dtype=torch.bool) if needed is None else needed)


@several
@given(data=st.data())
def test_reads_what_heads_with_a_needed_filter_read(data):
    case = Case(data)
    needed = case.needed()
    awake = torch.stack([needed[case.groups == head].any() for head in range(case.heads)])
    expected = (case.gate.mask[0][awake] > 0).any(dim=0)
    assert torch.equal(case.layer.reads(case.gate, needed), expected)


def a_layer():
    geometry = POINTS._replace(padding=(1, 1))
    return GatedConv(torch.randn(8, 6, 3, 3), torch.randn(8), geometry, RELU, torch.arange(8) // 4)


MASK = torch.tensor([[[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]]])


def a_map():
    return torch.randn(1, 6, 5, 5).contiguous(memory_format=torch.channels_last)


def test_heads_convolve_the_channels_that_they_read_alone(take_form, convolved):
    take_form(a_layer(), FORMS['heads'])(FeatureMap(a_map()), Gate(MASK), None, None)
    assert convolved == [(4, 3, 3, 3), (4, 2, 3, 3)]


def test_heads_convolve_the_filters_that_are_needed_alone(take_form, convolved):
    needed = torch.tensor([True, True, False, True, False, False, True, False])
    take_form(a_layer(), FORMS['heads'])(FeatureMap(a_map()), Gate(MASK), needed, None)
    assert convolved == [(3, 3, 3, 3), (1, 2, 3, 3)]


def test_heads_that_nobody_needs_do_not_convolve(take_form, convolved):
    needed = torch.tensor([False] * 4 + [True] * 4)
    take_form(a_layer(), FORMS['heads'])(FeatureMap(a_map()), Gate(MASK), needed, None)
    assert convolved == [(4, 2, 3, 3)]


def test_a_map_that_heads_read_in_full_is_not_gathered(take_form, monkeypatch):
    x, read, convolve = a_map(), [], bundles.convolve

    def spy(data, *rest):
        read.append(data.data_ptr())
        return convolve(data, *rest)

    monkeypatch.setattr(bundles, 'convolve', spy)
    gate = Gate(torch.ones_like(MASK))
    take_form(a_layer(), FORMS['heads'])(FeatureMap(x), gate, None, None)
    assert read == [x.data_ptr()] * 2


def test_the_whole_convolves_what_is_there_and_needed(take_form, convolved):
    needed, there = torch.tensor([True, False] * 4), torch.tensor([5, 0, 1, 2, 4])
    x = FeatureMap(a_map()[:, there], there)
    take_form(a_layer(), FORMS['whole'])(x, Gate(MASK), needed, None)
    assert convolved == [(4, 5, 3, 3)]


@each_form
@pytest.mark.parametrize('added', [False, True])
def test_closed_gates_leave_the_bias(form, added, take_form):
    layer, out = take_form(a_layer(), FORMS[form]), torch.zeros(1, 8, 5, 5) if added else None
    y = layer(FeatureMap(a_map()), Gate(torch.zeros_like(MASK)), None, out).data
    torch.testing.assert_close(y, F.relu(layer.bias)[:, None, None].expand(1, 8, 5, 5))


@each_form
def test_large_maps_are_the_same(form, take_form, all_maps_are_large):
    layer, x = take_form(a_layer(), FORMS[form]), a_map()
    value = MASK[0].repeat_interleave(4, dim=0)[..., None, None]
    expected = F.relu(F.conv2d(x, layer.weight * value, layer.bias, *layer.geometry))
    y = layer(FeatureMap(x), Gate(MASK), None, None)
    torch.testing.assert_close(y.data, expected, rtol=1e-4, atol=1e-4)


@each_form
def test_half_precision_networks_keep_their_precision(form, take_form):
    layer, x = take_form(a_layer().bfloat16(), FORMS[form]), a_map().bfloat16()
    y = layer(FeatureMap(x), Gate(MASK), None, None)  # gates are float32 at least
    assert y.data.dtype == torch.bfloat16


def self_gated(kind):
    torch.manual_seed(0)
    window = dict(kernel_size=3, padding=1)
    if kind == 'dgc':
        layer = DGCConv2d(12, 8, **window, heads=4, gate_factor=0.4)
        layer.set_progress(1)
        torch.nn.init.normal_(layer.saliency.fc2.weight)  # so that gates differ by image
        torch.nn.init.normal_(layer.saliency.fc2.bias)
        return layer.double().eval()
    heads = 3 if kind == 'ragged' else 4
    layer = MSGCConv2d(12, 8, **window, heads=heads, attention=kind == 'attention')
    for net in (layer.maskgen, *([layer.attgen] if kind == 'attention' else [])):
        torch.nn.init.normal_(net.conv[3].weight)
        torch.nn.init.normal_(net.conv[3].bias)
    return layer.double().eval()


KINDS = ['msgc', 'attention', 'ragged', 'dgc']


@pytest.mark.parametrize('kind', KINDS)
@torch.no_grad()
def test_a_layer_with_its_own_gate_computes_the_same(kind, take_form):
    for form in FORMS:
        layer, x = self_gated(kind), torch.randn(1, 12, 6, 6, dtype=torch.float64)
        expected = layer(x)
        *before, unit = units_of(layer)
        y = FeatureMap(x)
        for step in (*before, take_form(unit, FORMS[form])):
            y = step(y, None, None, None)
        found = y.in_order(8, MapMemory())
        assert torch.allclose(found, expected, **TOLERANCE[torch.float64]), form


@pytest.mark.parametrize('kind', KINDS)
@torch.no_grad()
def test_its_input_can_come_in_another_order(kind, take_form):
    for form in FORMS:
        unit = take_form(units_of(self_gated(kind))[-1], FORMS[form])
        x = torch.randn(1, 12, 6, 6, dtype=torch.float64)
        expected = unit(FeatureMap(x), None, None, None).in_order(8, MapMemory())
        order = torch.randperm(12)
        unit.expect(order)
        found = unit(FeatureMap(x[:, order]), None, None, None).in_order(8, MapMemory())
        assert torch.allclose(found, expected, **TOLERANCE[torch.float64]), form


def test_its_input_is_computed_in_full():
    for kind in KINDS:
        unit = units_of(self_gated(kind))[-1]
        assert isinstance(unit, SelfGatedConv)
        assert unit.reads(None, torch.zeros(8, dtype=torch.bool)) is None, kind


def test_the_layer_keeps_its_weight():
    layer = self_gated('msgc')
    weight = layer.weight
    units_of(layer)
    assert layer.weight is weight
