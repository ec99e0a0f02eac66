"""Group norms of graphs, some of whose channels nobody reads."""

import numpy as np
import pytest

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

import onnx_ir as ir

from mmdet_groupconv.deploy.group_norm import GroupNorm
from mmdet_groupconv.deploy.needed import needed_filters
from mmdet_groupconv.deploy.regroup import regroup
from mmdet_groupconv.deploy.ways import Bundle, Way, ways_of

CHANNELS, GROUPS = 64, 16


def normalised(made, x, groups=GROUPS, channels=CHANNELS):
    """As PyTorch's exporter writes it."""
    shape = made.node('Shape', x)
    sides = made.node('Constant', value_ints=[0, groups, -1])
    y = made.node('Reshape', x, sides)
    ones, zeros = (made.constant(f(groups, np.float32)) for f in (np.ones, np.zeros))
    y = made.node('InstanceNormalization', y, ones, zeros, epsilon=1e-5)
    y = made.node('Reshape', y, shape)
    sides = [made.constant(made.rng.random((channels, 1, 1), np.float32)) for _ in range(2)]
    y = made.node('Add', made.node('Mul', y, sides[0]), sides[1])
    made.channels[y] = channels
    return y


def network(net, read):
    """A convolution, its norm, and a convolution that reads the channels `read` of that."""
    made = net(channels=16)
    first = made.conv('images', made.dense(CHANNELS, 16))
    y = normalised(made, first)
    connected = np.zeros((16, CHANNELS))
    connected[:, read] = 1
    last = made.conv(made.node('Relu', y), made.weight(connected))
    return made.model(last), first


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((1, 16, 6, 5), np.float32)


def test_a_channel_needs_all_of_its_group(net):
    model, first = network(net, [9, 10, 33])
    needed = {value.name: found for value, found in needed_filters(model.graph).items()}
    assert needed[first].nonzero()[0].tolist() == [8, 9, 10, 11, 32, 33, 34, 35]


def test_groups_that_nobody_reads_are_gone(net, run, assert_same, connections, images):
    model, first = network(net, [9, 10, 33])
    needed = {value.name: found for value, found in needed_filters(model.graph).items()}
    way = ways_of(np.ones((CHANNELS, 16, 1, 1)), needed[first])[0]
    new = regroup(model, {first: way})
    assert connections(new) == [16 * 16, 16 * 16]
    assert_same(run(new, images), run(model, images))


@pytest.mark.parametrize('filters', [[8, 9, 10], [8, 10, 9, 11, 1, 2, 3, 4]])
def test_groups_that_are_not_together_are_put_in_order(net, run, assert_same, images, filters):
    """The norm of channels that are there, each in any group, would be another."""
    made = net(channels=16)
    first = made.conv('images', made.dense(CHANNELS, 16))
    last = made.conv(normalised(made, first), made.dense(16, CHANNELS))
    model = made.model(last)
    others = np.setdiff1d(np.arange(CHANNELS), filters)
    reads = np.arange(16)
    ways = {first: Way([Bundle(np.array(filters), reads), Bundle(others, reads)])}
    assert_same(run(regroup(model, ways), images), run(model, images))


def test_channels_of_a_group_may_come_in_any_order(net, run, assert_same, images):
    made = net(channels=16)
    first = made.conv('images', made.dense(CHANNELS, 16))
    last = made.conv(normalised(made, first), made.dense(16, CHANNELS))
    model = made.model(last)
    order = np.arange(CHANNELS).reshape(GROUPS, -1)[::-1, ::-1].ravel()
    new = regroup(model, {first: Way([Bundle(order, np.arange(16))])})
    assert 'Gather' not in {node.op_type for node in new.graph}
    assert_same(run(new, images), run(model, images))


def test_a_norm_of_each_group_with_a_scale_of_its_own_is_another(net):
    model, first = network(net, [9, 10, 33])
    (norm,) = (node for node in model.graph if node.op_type == 'InstanceNormalization')
    scale = norm.inputs[1].const_value.numpy()
    norm.inputs[1].const_value = ir.Tensor(2 * scale)
    needed = {value.name: found for value, found in needed_filters(model.graph).items()}
    assert needed[first].all()


def test_other_reshapes_begin_no_norm(net):
    made = net(channels=16)
    x = made.conv('images', made.dense(CHANNELS, 16))
    y = made.node('Reshape', x, made.constant(np.array([0, 16, -1])))
    model = made.model(made.node('Relu', y))
    (node,) = (node for node in model.graph if node.op_type == 'Reshape')
    assert GroupNorm.at(node) is None
