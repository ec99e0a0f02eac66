"""Reading and writing graphs."""

import numpy as np
import pytest

pytest.importorskip('onnx')

from onnx import numpy_helper

from mmdet_groupconv.deploy.graph import Graph, Writer, attributes


def node_of(graph, name):
    return next(node for node in graph.nodes if name in node.output)


def test_the_weight_of_a_convolution_is_what_its_initializer_holds(net):
    made = net()
    weight = made.dense(4, 3)
    name = made.conv('images', weight)
    graph = Graph(made.model(name).graph)
    np.testing.assert_array_equal(graph.weight(node_of(graph, name)), weight)


def test_other_nodes_have_no_weight(net):
    made = net(channels=4)
    grouped = made.conv('images', made.dense(4, 2), group=2)
    computed = made.node('Relu', made.constant(made.dense(4, 4)))
    by_image = made.node('Conv', grouped, computed)
    active = made.node('Relu', by_image)
    graph = Graph(made.model(active).graph)
    for name in (grouped, by_image, active):
        assert graph.weight(node_of(graph, name)) is None, name


def test_a_weight_or_bias_is_found_behind_an_identity(net):
    made = net()
    weight, bias = made.dense(4, 3), np.arange(4, dtype=np.float32)
    shared = [made.node('Identity', made.constant(array)) for array in (weight, bias)]
    name = made.node('Conv', 'images', *shared)
    graph = Graph(made.model(name).graph)
    np.testing.assert_array_equal(graph.weight(node_of(graph, name)), weight)
    np.testing.assert_array_equal(graph.bias(node_of(graph, name)), bias)


def test_a_convolution_without_a_bias_has_zeros(net):
    made = net()
    name = made.conv('images', made.dense(4, 3), bias=False)
    graph = Graph(made.model(name).graph)
    bias = graph.bias(node_of(graph, name))
    assert bias.dtype == np.float32
    assert bias.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ('channels', 'filters', 'group', 'expected'),
    [(4, 4, 4, True), (4, 8, 4, False), (4, 4, 2, False), (1, 1, 1, False), (4, 4, 1, False)],
)
def test_depthwise_convolutions_have_a_filter_a_channel(net, channels, filters, group, expected):
    made = net(channels)
    name = made.conv('images', made.dense(filters, channels // group, 3), group=group)
    graph = Graph(made.model(name).graph)
    assert graph.is_depthwise(node_of(graph, name)) == expected


def test_depthwise_convolutions_with_computed_weights_are_not_known_as_such(net):
    made = net(channels=4)
    computed = made.node('Relu', made.constant(made.dense(4, 1)))
    name = made.node('Conv', 'images', computed, group=4)
    graph = Graph(made.model(name).graph)
    assert not graph.is_depthwise(node_of(graph, name))
    assert not graph.passes_channels(node_of(graph, name))


def test_the_reader_behind_activations_and_depthwise_convolutions_is_found(net):
    made = net()
    x = made.conv('images', made.dense(4, 3))
    y = made.node('Relu', x)
    y = made.conv(y, made.dense(4, 1, 3), group=4)
    y = made.node('Clip', y, made.constant(np.float32(0)), made.constant(np.float32(6)))
    last = made.conv(y, made.dense(5, 4))
    graph = Graph(made.model(last).graph)
    assert graph.reader_behind(x).output[0] == last
    assert graph.reader_behind(last) is None


def test_tensors_with_two_readers_or_that_are_outputs_have_no_only_reader(net):
    made = net()
    x = made.conv('images', made.dense(4, 3))
    y = made.node('Relu', x)
    one, other = (made.conv(y, made.dense(4, 4)) for _ in range(2))
    behind = made.conv(one, made.dense(4, 4))
    graph = Graph(made.model(one, other, behind).graph)
    assert graph.reader_behind(x) is None
    assert graph.reader_behind(one) is None


def test_equal_constants_are_written_once():
    writer = Writer()
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert writer.constant(array) == writer.constant(array.T.copy().T)
    different = [array + 1, array.reshape(3, 2), array.astype(np.float64)]
    assert len({writer.constant(x) for x in (array, *different)}) == 4


def test_equal_nodes_are_written_once():
    writer = Writer()
    first = writer.node('Concat', ['a', 'b'], axis=1)
    assert writer.node('Concat', ['a', 'b'], axis=1) == first
    others = {writer.node('Concat', *args) for args in ((['b', 'a'],), (['a', 'b'],))}
    others.add(writer.node('Concat', ['a', 'b'], axis=2))
    assert len(others | {first}) == 4
    assert writer.node('Concat', ['a', 'b'], 'named', axis=1) == 'named'  # as others read it
    assert len({node.output[0] for node in writer.nodes}) == len(writer.nodes) == 5


def test_what_nobody_reads_is_not_written(net):
    made = net()
    out = made.conv('images', made.dense(4, 3))
    model = made.model(out)
    (conv,) = model.graph.node
    writer = Writer()
    writer.nodes.append(conv)
    unread = writer.node('Conv', ['images', writer.constant(made.dense(5, 3))])
    writer.node('Relu', [unread])
    new = writer.finish(model)
    assert list(new.graph.node) == [conv]
    assert [c.name for c in new.graph.initializer] == list(conv.input[1:])


def test_a_tensor_can_stand_for_another(net, run, assert_same):
    made = net()
    first = made.conv('images', made.dense(4, 3))
    model = made.model(first, made.node('Relu', first))
    conv, relu = model.graph.node
    writer = Writer()
    tensor = writer.node('Conv', list(conv.input), **attributes(conv))
    writer.node('Identity', [tensor], first)
    writer.alias('elsewhere', tensor)
    writer.node('Relu', ['elsewhere'], relu.output[0])
    new = writer.finish(model)
    images = np.random.default_rng(0).standard_normal((1, 3, 5, 5), np.float32)
    assert_same(run(new, images), run(model, images))
    assert [node.op_type for node in new.graph.node] == ['Conv', 'Identity', 'Relu']


def test_a_model_keeps_its_inputs_and_outputs_when_it_is_rewritten(net):
    made = net()
    model = made.model(made.conv('images', made.dense(4, 3)))
    before = model.SerializeToString()
    writer = Writer()
    writer.nodes.extend(model.graph.node)
    new = writer.finish(model)
    assert new.graph.input == model.graph.input
    assert new.graph.output == model.graph.output
    assert model.SerializeToString() == before


def test_attributes_are_read_by_name(net):
    made = net()
    made.conv('images', made.dense(4, 3, 3), stride=2)
    assert attributes(made.nodes[0]) == dict(strides=[2, 2], pads=[1] * 4, group=1)
    assert numpy_helper.to_array(made.constants[0]).shape == (4, 3, 3, 3)


def test_a_weight_in_integers_is_what_the_floats_would_be(net):
    made = net()
    weight = made.dense(4, 3)
    name = made.conv('images', made.whole(weight))
    graph = Graph(made.model(name).graph)
    node = node_of(graph, name)
    scale = graph.scale(node.input[1])
    assert scale.shape == (4, 1, 1, 1)
    np.testing.assert_allclose(graph.weight(node), weight, atol=0.51 * float(scale.max()))
    steps = graph.weight(node) / scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)


def test_what_made_a_map_whole_is_found(net):
    made = net()
    name = made.conv(made.quantised('images'), made.dense(4, 3))
    graph = Graph(made.model(name).graph)
    node = node_of(graph, name)
    assert graph.quantiser(node.input[0]).input[0] == 'images'
    assert graph.quantiser('images') is None
    assert graph.scale(node.input[1]) is None


def test_quantising_a_map_does_the_same_with_each_value_but_not_by_channel(net):
    made = net()
    by_channel = [made.constant(np.full(3, 0.1, np.float32)), made.constant(np.zeros(3, np.uint8))]
    other = made.node('QuantizeLinear', 'images', *by_channel, axis=1)
    name = made.quantised(made.node('DequantizeLinear', other, *by_channel, axis=1))
    graph = Graph(made.model(name).graph)
    assert graph.looks_at_values(node_of(graph, name))
    assert not graph.looks_at_values(node_of(graph, other))


def test_an_roialign_s_map_comes_before_it_alone(net):
    made = net()
    maps, rois = made.node('Relu', 'images'), made.node('Sigmoid', 'images')
    name = made.node('RoiAlign', maps, rois, rois)
    graph = Graph(made.graph(name))
    assert [n.op_type for n in graph.maps_before(node_of(graph, name))] == ['Relu']
    assert [n.op_type for n in graph.behind(node_of(graph, maps))] == ['RoiAlign']
