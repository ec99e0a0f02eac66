"""Graphs in int8."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('onnxruntime')
pytest.importorskip('nncf')

import onnx_ir as ir

from mmdet_groupconv.deploy import quantise as quantising
from mmdet_groupconv.deploy.graph import constant, quantiser_of, scale_of
from mmdet_groupconv.deploy.quantise import quantise
from mmdet_groupconv.deploy.runtime import Runtime


def noise(number=4):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, 3, 24, 32), np.float32) for _ in range(number)]


def predictor(net, spoil=False):
    """Pixels are scaled, three layers predict, what is predicted is scaled again."""
    made = net()
    x = made.node('Mul', 'images', made.constant(np.float32(2)))
    weights, weight = made.dense(16, 3, 3), made.dense(16, 16, 3)
    if spoil:  # large weights of a channel that is always 0 leave few steps for the others
        weights[0] = 0
        weight[:, 0] = 30
    first = made.conv(x, weights, bias=False)
    second = made.conv(made.node('Relu', first), weight)
    last = made.conv(made.node('Relu', second), made.dense(4, 16))
    out = made.node('Mul', last, made.constant(np.float32(3)))
    for node in made.nodes:
        node.name = node.output[0]
    return made.model(out), first, second, last


def in_integers(model):
    """Names of the layers whose weights are, and of those whose input is."""
    convs = [node for node in model.graph if node.op_type == 'Conv']
    return (
        [n.name for n in convs if scale_of(n.inputs[1]) is not None],
        [n.name for n in convs if quantiser_of(n.inputs[0]) is not None],
    )


def test_layers_and_what_is_between_them_are_in_integers(net, run):
    model, *layers = predictor(net)
    quantised, change, stay_float = quantise(model, noise(), Runtime())
    assert stay_float == {}
    assert 0 < change < quantising.LIMIT
    assert in_integers(quantised) == (layers, layers)
    kinds = [node.op_type for node in quantised.graph]
    assert kinds.count('QuantizeLinear') == 3  # none for pixels before the scale, nor behind
    images = noise(5)[-1]
    (found,), (expected,) = run(quantised, images).values(), run(model, images).values()
    assert 0 < np.square(found - expected).mean() / expected.var() < 0.002


def test_a_layer_that_costs_accuracy_stays_float_and_is_named(net, run):
    model, first, second, last = predictor(net, spoil=True)
    weight = next(n.inputs[1].name for n in model.graph if n.name == second)
    quantised, change, stay_float = quantise(model, noise(), Runtime())
    assert change < quantising.LIMIT
    assert list(stay_float) == [weight]
    assert stay_float[weight] > quantising.LIMIT
    assert in_integers(quantised) == ([first, last], [first, last])
    images = noise(5)[-1]
    (found,), (expected,) = run(quantised, images).values(), run(model, images).values()
    assert np.square(found - expected).mean() / expected.var() < 0.002


@given(st.lists(st.integers(0, 100), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_largest_shares_come_first_where_they_add_up(shares):
    names = list(range(len(shares)))
    found = list(quantising.largest_first(names, lambda part: sum(shares[n] for n in part)))
    assert all(shares[name] == share for name, share in found)
    positive = sorted((share for share in shares if share > 0), reverse=True)
    assert [share for _, share in found] == positive


def test_few_layers_to_blame_are_found_in_few_calls():
    shares, calls = [0.001] * 64, []
    shares[5], shares[40] = 1.0, 0.5

    def share(part):
        calls.append(part)
        return sum(shares[name] for name in part)

    found = quantising.largest_first(list(range(64)), share)
    assert [next(found), next(found)] == [(5, 1.0), (40, 0.5)]
    assert len(calls) <= 24


def test_no_map_has_a_zero_point(net):
    graph = quantise(predictor(net)[0], noise(), Runtime()).model.graph
    zeros = [constant(n.inputs[2]) for n in graph if n.op_type == 'QuantizeLinear']
    assert {str(zero.dtype) for zero in zeros} == {'int8', 'uint8'}  # signed, and behind a ReLU
    assert not any(zero.any() for zero in zeros)


def test_maps_that_are_enlarged_stay_float(net):
    made = net()
    x = made.node('Relu', made.conv('images', made.dense(16, 3, 3)))
    scales = made.constant(np.array([1, 1, 2, 2], np.float32))
    large = made.node('Resize', x, '', scales, mode='nearest')
    last = made.conv(large, made.dense(4, 16))
    for node in made.nodes:
        node.name = node.output[0]
    graph = quantise(made.model(last), noise(), Runtime()).model.graph
    resize = next(node for node in graph if node.op_type == 'Resize')
    assert quantiser_of(resize.inputs[0]) is None
    assert quantiser_of(next(n for n in graph if n.name == last).inputs[0]) is not None


@pytest.mark.parametrize(
    ('weight', 'name'),
    [
        ('detector.backbone.layer1.0.chain.units.1.weight', 'backbone.layer1.0.1'),
        ('model.backbone.conv1.unit.weight', 'backbone.conv1'),
        ('constant_3', 'constant_3'),
    ],
)
def test_layers_are_named_as_in_the_network(weight, name):
    assert quantising._layer_name(weight) == name


def test_a_missing_package_is_named(net, monkeypatch):
    monkeypatch.setitem(sys.modules, 'nncf', None)
    with pytest.raises(ImportError, match='nncf not found'):
        quantise(predictor(net)[0], noise(1), Runtime())


def test_levels_that_find_nothing_count_by_what_they_vary(net):
    def levels(error):
        made = net()
        weight = made.constant(made.dense(4, 3))
        small = made.node('Mul', 'images', made.constant(np.float32(1e-3)))
        shifted = made.node('Add', small, made.constant(np.float32(error)))
        outputs = [made.conv(x, weight, bias=False) for x in ('images', shifted)]
        return made.model(*(made.node('Mul', y, made.constant(np.float32(1))) for y in outputs))

    change = quantising._change(levels(0), noise(), Runtime())(levels(1e-3))
    assert 0 < change < 1e-5  # of the second level's own variance it is 1


def test_an_roialign_s_map_comes_before_it_alone(net):
    made = net()
    maps, rois = made.node('Relu', 'images'), made.node('Sigmoid', 'images')
    made.node('RoiAlign', maps, rois, rois)
    *_, node = ir.from_proto(made.graph())
    assert [n.op_type for n in quantising._maps_before(node)] == ['Relu']
