"""Which channels of a graph somebody reads."""

import numpy as np
import pytest

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

from mmdet_groupconv.deploy.needed import Source, in_blocks, needed_filters


def needed_of(model):
    return {value.name: needed for value, needed in needed_filters(model.graph).items()}


def closed(made, filters, channels, read):
    """A weight whose filters all read the same channels."""
    connected = np.zeros((filters, channels))
    connected[:, read] = 1
    return made.weight(connected)


def test_filters_whose_channels_are_closed_are_not_needed(net):
    made = net()
    first = made.conv('images', made.dense(8, 3))
    x = made.conv(made.node('Relu', first), made.dense(8, 1, 3), group=8)
    last = made.conv(x, closed(made, 4, 8, [1, 5]))
    needed = needed_of(made.model(last))
    assert needed[first].nonzero()[0].tolist() == [1, 5]
    assert needed[last].tolist() == [True] * 4


def test_what_filters_read_that_nobody_needs_is_not_needed_either(net):
    made = net()
    first = made.conv('images', made.dense(8, 3))
    second = made.conv(first, made.weight(np.eye(8)))  # filter i reads channel i
    last = made.conv(second, closed(made, 4, 8, [2, 3]))
    assert needed_of(made.model(last))[first].nonzero()[0].tolist() == [2, 3]


def test_one_filter_at_least_stays(net):
    made = net()
    first = made.conv('images', made.dense(8, 3))
    last = made.conv(first, closed(made, 4, 8, []))
    assert needed_of(made.model(last))[first].nonzero()[0].tolist() == [0]


def test_all_readers_are_heard(net):
    made = net()
    first = made.conv('images', made.dense(8, 3))
    one = made.conv(first, closed(made, 4, 8, [0, 1]))
    other = made.conv(made.node('Relu', first), closed(made, 4, 8, [1, 6]))
    model = made.model(one, other)
    assert needed_of(model)[first].nonzero()[0].tolist() == [0, 1, 6]


@pytest.mark.parametrize('reader', ['MaxPool', 'Add', 'grouped', 'output', 'Clip'])
def test_everything_is_needed_where_not_only_convolutions_read(net, reader):
    made = net()
    first = made.conv('images', made.dense(8, 3))
    outputs = [made.conv(first, closed(made, 4, 8, [0]))]
    if reader == 'output':
        outputs.append(first)
    elif reader == 'grouped':
        outputs.append(made.conv(first, made.dense(4, 4), group=2))
    elif reader == 'Add':
        outputs.append(made.node('Add', first, first))
    elif reader == 'Clip':
        outputs.append(made.node('Clip', first, made.constant(np.float32(0))))
    else:
        outputs.append(made.node('MaxPool', first, kernel_shape=[1, 1]))
    assert needed_of(made.model(*outputs))[first].all()


@pytest.mark.parametrize(('read', 'kept'), [(0, 0), (20, 20), (32, 32), (33, 40), (40, 40)])
def test_less_than_a_block_is_not_saved(read, kept):
    assert in_blocks(np.arange(40) < read).sum() == kept


def test_channels_come_from_the_convolution_that_computes_them(net):
    made = net()
    first = made.conv('images', made.dense(8, 3))
    last = made.conv(made.node('Relu', first), made.dense(8, 1, 3), group=8)
    model = made.model(last)
    source = Source.of(model.graph.outputs[0])
    assert source.value.name == source.of_channels.name == first
    assert source.drops
    assert source.depthwise is None


def test_channels_of_a_sum_are_left_out_by_the_depthwise_convolution_behind_it(net):
    made = net()
    total = made.node('Add', *(made.conv('images', made.dense(8, 3)) for _ in range(2)))
    depthwise = made.conv(made.node('Relu', total), made.dense(8, 1, 3), group=8)
    model = made.model(made.node('Relu', depthwise))
    source = Source.of(model.graph.outputs[0])
    assert (source.value.name, source.of_channels.name) == (total, depthwise)
    assert source.depthwise.outputs[0].name == depthwise
    assert not source.drops


def test_behind_a_pool_a_depthwise_convolution_is_not_looked_for(net):
    made = net()
    total = made.node('Add', *(made.conv('images', made.dense(8, 3)) for _ in range(2)))
    depthwise = made.conv(total, made.dense(8, 1, 3), group=8)
    model = made.model(made.node('MaxPool', depthwise, kernel_shape=[2, 2]))
    assert Source.of(model.graph.outputs[0]).depthwise is None


def test_an_image_has_no_source_but_itself(net):
    made = net()
    model = made.model(made.node('Relu', 'images'))
    source = Source.of(model.graph.outputs[0])
    assert source.value is model.graph.inputs[0]
    assert not source.drops
