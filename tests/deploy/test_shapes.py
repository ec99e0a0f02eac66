"""Sizes of maps are found by running a graph."""

import numpy as np
import pytest

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

import onnx_ir as ir

from mmdet_groupconv.deploy.shapes import name_sizes, sizes_of, takes_one_image


def named(model):
    """The dimensions written down by tensor: a number or a name each."""
    made = [value for node in model.graph for value in node.outputs if not value.is_graph_output()]
    return {v.name: [getattr(d, 'value', d) for d in v.shape] for v in made if v.shape is not None}


def two_sums(made):
    """Two sums of different sizes. Returns the tensors of both, summands and sum."""
    x = made.conv('images', made.dense(8, 3, 3), stride=2)
    y = made.conv(x, made.dense(8, 8))
    first = made.node('Add', x, y)
    a = made.conv(first, made.dense(12, 8, 3), stride=2)
    b = made.conv(first, made.dense(12, 8), stride=2)
    second = made.node('Add', a, b)
    return (x, y, first), (a, b, second)


def zeros(batch, height, width):
    return np.zeros((batch, 3, height, width), np.float32)


def test_sizes_are_those_of_the_maps(net):
    made = net()
    (x, *_), (*_, last) = two_sums(made)
    model = made.model(made.node('Relu', last))
    assert sizes_of(model, [x, last, x], [zeros(1, 9, 14), zeros(2, 32, 64)]) == [
        {x: (1, 8, 5, 7), last: (1, 12, 3, 4)},
        {x: (2, 8, 16, 32), last: (2, 12, 8, 16)},
    ]
    assert sizes_of(model, [], [zeros(1, 9, 14), zeros(1, 8, 8)]) == [{}, {}]


def test_equal_sizes_get_equal_names(net):
    made = net()
    first, second = two_sums(made)
    model = made.model(made.node('Relu', second[-1]))
    name_sizes(model)
    found = named(model)
    assert set(found) == {*first, *second}
    for tensors, channels in ((first, 8), (second, 12)):
        shapes = [found[name] for name in tensors]
        assert shapes == [shapes[0]] * 3
        batch, fixed, *sides = shapes[0]
        assert fixed == channels
        assert all(isinstance(name, str) for name in (batch, *sides))
    assert found[first[0]][0] == found[second[0]][0]  # the batch
    assert len({*found[first[0]][2:], *found[second[0]][2:]}) == 4


def test_outputs_inputs_and_constants_are_left_out(net):
    made = net()
    bias = made.constant(made.dense(1, 3))
    x = made.node('Add', 'images', bias)
    y = made.node('Add', x, made.conv('images', made.dense(3, 3)))
    model = made.model(y)
    name_sizes(model)
    assert set(named(model)) == {x, model.graph[1].outputs[0].name}
    assert [side.value for side in model.graph.outputs[0].shape] == [None] * 4


def test_sides_of_small_maps_are_not_taken_for_fixed_ones(net):
    made = net()
    x = 'images'
    for _ in range(7):  # as the last level of a pyramid
        x = made.conv(x, made.dense(4, made.channels[x], 3), stride=2)
    y = made.node('Add', x, made.conv(x, made.dense(4, 4)))
    model = made.model(made.node('Relu', y))
    name_sizes(model)
    batch, channels, height, width = named(model)[y]
    assert channels == 4
    assert len({batch, height, width}) == 3
    assert all(isinstance(name, str) for name in (batch, height, width))


def test_a_batch_of_one_is_told_from_any_batch(net):
    for batch, expected in ((1, True), ('batch', False), (2, False)):
        made = net()
        made.model(made.conv('images', made.dense(4, 3)), batch=batch)
        assert takes_one_image(made.model(made.nodes[-1].output[0], batch=batch)) == expected


def test_graphs_for_one_image_get_a_fixed_batch(net):
    made = net()
    _, second = two_sums(made)
    model = made.model(made.node('Relu', second[-1]), batch=1)
    name_sizes(model)
    assert {tuple(shape[:2]) for shape in named(model).values()} == {(1, 8), (1, 12)}
    values = ir.convenience.create_value_mapping(model.graph)
    assert {values[name].dtype for name in named(model)} == {ir.DataType.FLOAT}
