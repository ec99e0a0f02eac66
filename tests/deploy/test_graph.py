"""Constants of graphs, and what their nodes do with channels."""

import numpy as np
import pytest

pytest.importorskip('onnx_ir')

from mmdet_groupconv.deploy.graph import (
    bias_of,
    constant,
    is_depthwise,
    looks_at_values,
    passes_channels,
    quantiser_of,
    reader_behind,
    scale_of,
    weight_of,
)


def node_of(model, name):
    return next(node for node in model.graph if node.outputs[0].name == name)


def test_the_weight_of_a_convolution_is_what_its_initializer_holds(net):
    made = net()
    weight = made.dense(4, 3)
    name = made.conv('images', weight)
    np.testing.assert_array_equal(weight_of(node_of(made.model(name), name)), weight)


def test_other_nodes_have_no_weight(net):
    made = net(channels=4)
    grouped = made.conv('images', made.dense(4, 2), group=2)
    computed = made.node('Relu', made.constant(made.dense(4, 4)))
    by_image = made.node('Conv', grouped, computed)
    active = made.node('Relu', by_image)
    model = made.model(active)
    for name in (grouped, by_image, active):
        assert weight_of(node_of(model, name)) is None, name


def test_layers_that_share_a_constant_read_the_same_one(net):
    made = net()
    weight, bias = (made.constant(x) for x in (made.dense(4, 3), np.arange(4, dtype=np.float32)))
    same = [made.node('Identity', name) for name in (weight, bias)]
    first, second = made.node('Conv', 'images', weight, bias), made.node('Conv', 'images', *same)
    model = made.model(first, second)
    one, other = model.graph
    assert [value.name for value in other.inputs[1:]] == [weight, bias]
    assert other.inputs[1:] == one.inputs[1:]


def test_outputs_that_are_the_same_keep_their_names(net):
    made = net()
    first = made.conv('images', made.dense(4, 3))
    second = made.node('Identity', first)
    assert [value.name for value in made.model(first, second).graph.outputs] == [first, second]


def test_a_convolution_without_a_bias_has_zeros(net):
    made = net()
    name = made.conv('images', made.dense(4, 3), bias=False)
    bias = bias_of(node_of(made.model(name), name))
    assert bias.dtype == np.float32
    assert bias.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ('channels', 'filters', 'group', 'expected'),
    [(4, 4, 4, True), (4, 8, 4, False), (4, 4, 2, False), (1, 1, 1, False), (4, 4, 1, False)],
)
def test_depthwise_convolutions_have_a_filter_a_channel(net, channels, filters, group, expected):
    made = net(channels)
    name = made.conv('images', made.dense(filters, channels // group, 3), group=group)
    assert is_depthwise(node_of(made.model(name), name)) == expected


def test_depthwise_convolutions_with_computed_weights_are_not_known_as_such(net):
    made = net(channels=4)
    computed = made.node('Relu', made.constant(made.dense(4, 1)))
    name = made.node('Conv', 'images', computed, group=4)
    node = node_of(made.model(name), name)
    assert not is_depthwise(node)
    assert not passes_channels(node)


def test_the_reader_behind_activations_and_depthwise_convolutions_is_found(net):
    made = net()
    x = made.conv('images', made.dense(4, 3))
    y = made.node('Relu', x)
    y = made.conv(y, made.dense(4, 1, 3), group=4)
    y = made.node('Clip', y, made.constant(np.float32(0)), made.constant(np.float32(6)))
    last = made.conv(y, made.dense(5, 4))
    first, *_, reader = made.model(last).graph
    assert reader_behind(first.outputs[0]) is reader
    assert reader_behind(reader.outputs[0]) is None


def test_tensors_with_two_readers_or_that_are_outputs_have_no_only_reader(net):
    made = net()
    x = made.conv('images', made.dense(4, 3))
    y = made.node('Relu', x)
    one, other = (made.conv(y, made.dense(4, 4)) for _ in range(2))
    behind = made.conv(one, made.dense(4, 4))
    model = made.model(one, other, behind)
    for name in (x, one):
        assert reader_behind(node_of(model, name).outputs[0]) is None


def test_a_weight_in_integers_is_what_the_floats_would_be(net):
    made = net()
    weight = made.dense(4, 3)
    name = made.conv('images', made.whole(weight))
    node = node_of(made.model(name), name)
    scale = scale_of(node.inputs[1])
    assert scale.shape == (4, 1, 1, 1)
    np.testing.assert_allclose(weight_of(node), weight, atol=0.51 * float(scale.max()))
    steps = weight_of(node) / scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)


def test_a_weight_in_integers_with_a_zero_point_is_not_known(net):
    made = net()
    inputs = [np.ones((4, 3, 1, 1), np.int8), np.float32(0.1), np.int8(1)]
    weight = made.node('DequantizeLinear', *map(made.constant, inputs))
    name = made.node('Conv', 'images', weight)
    node = node_of(made.model(name), name)
    assert constant(node.inputs[1]) is None
    assert weight_of(node) is None


def test_what_made_a_map_whole_is_found(net):
    made = net()
    name = made.conv(made.quantised('images'), made.dense(4, 3))
    node = node_of(made.model(name), name)
    images = quantiser_of(node.inputs[0]).inputs[0]
    assert images.name == 'images'
    assert quantiser_of(images) is None
    assert scale_of(node.inputs[1]) is None


def test_quantising_a_map_does_the_same_with_each_value_but_not_by_channel(net):
    made = net()
    by_channel = [made.constant(np.full(3, 0.1, np.float32)), made.constant(np.zeros(3, np.uint8))]
    other = made.node('QuantizeLinear', 'images', *by_channel, axis=1)
    name = made.quantised(made.node('DequantizeLinear', other, *by_channel, axis=1))
    model = made.model(name)
    assert looks_at_values(node_of(model, name))
    assert not looks_at_values(node_of(model, other))
