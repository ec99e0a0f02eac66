"""Networks whose channels are numbered anew compute what they did."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

import onnx_ir as ir

from mmdet_groupconv.deploy.graph import weight_of
from mmdet_groupconv.deploy.needed import needed_filters
from mmdet_groupconv.deploy.regroup import regroup
from mmdet_groupconv.deploy.relabel import relabel
from mmdet_groupconv.deploy.ways import ways_of

KINDS = (
    'grouped', 'dense', 'relu', 'depthwise', 'residual', 'pool', 'resize', 'branch', 'levels',
    'scaled',
)  # fmt: skip


def network(net, kinds, seed):
    """A graph of the steps, 64 channels wide, each convolution in 2 or 4 groups at random."""
    made = net(channels=3, seed=seed)
    x, outputs = made.conv('images', made.dense(64, 3)), []

    def grouped(x, size=3):
        return made.conv(x, made.groups(64, 64, int(made.rng.choice([2, 4])), size))

    for kind in kinds:
        if kind == 'grouped':
            x = grouped(x)
        elif kind == 'dense':
            x = made.conv(x, made.dense(64, 64))
        elif kind == 'relu':
            x = made.node('Relu', x)
        elif kind == 'depthwise':
            x = made.conv(x, made.dense(64, 1, 3), group=64)
        elif kind == 'residual':
            x = made.node('Relu', made.node('Add', x, grouped(made.node('Relu', grouped(x)))))
        elif kind == 'pool':
            x = made.node('MaxPool', x, kernel_shape=[3, 3], pads=[1] * 4)
        elif kind == 'resize':
            scales = made.constant(np.array([1, 1, 2, 2], np.float32))
            x = made.node('Resize', x, '', scales, mode='nearest')
        elif kind == 'scaled':  # channel by channel, which is not looked into
            x = made.node('Mul', x, made.constant(made.rng.random((64, 1, 1), np.float32)))
        elif kind == 'branch':
            outputs.append(x)
            x = made.node('Relu', x)
        else:  # a head's weights on two levels
            weight = made.constant(made.groups(64, 64, 4))
            other = made.conv(x, made.groups(64, 64, 2), stride=2)
            x, other = (made.conv(level, weight) for level in (x, other))
            outputs.append(made.conv(other, made.groups(64, 64, 2)))
    return made.model(*dict.fromkeys([*outputs, made.conv(x, made.groups(64, 64, 2))]))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6), st.integers(0, 100))
def test_any_network_computes_the_same(net, run, assert_same, kinds, seed):
    model = network(net, kinds, seed)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 6), np.float32)
    assert_same(run(relabel(model), images), run(model, images))


def natively(model):
    """In the most groups that each convolution can have."""
    needed, ways = needed_filters(model.graph), {}
    for node in model.graph:
        if weight_of(node) is not None:
            native = [w for w in ways_of(weight_of(node), needed[node.outputs[0]]) if w.native]
            if native:
                ways[node.outputs[0].name] = native[-1]
    return regroup(model, ways)


def kinds_of(model):
    return [node.op_type for node in model.graph]


def stream(net, blocks, orders):
    """Residual blocks, all layers in four groups; the stream in one order, or each in its own."""
    made = net(channels=3)
    rng = np.random.default_rng(1)
    group = rng.permutation(np.arange(64) // 16)

    def grouped(x):
        own = group if orders == 'one' else rng.permutation(group)
        return made.conv(x, made.weight(own[:, None] == own, 3))

    x = made.conv('images', made.dense(64, 3))
    for _ in range(blocks):
        x = made.node('Relu', made.node('Add', x, grouped(made.node('Relu', grouped(x)))))
    return made.model(made.node('GlobalAveragePool', made.conv(x, made.dense(8, 64))))


def test_a_stream_in_one_order_needs_no_gathers(net, run, assert_same):
    model = stream(net, 3, 'one')
    assert kinds_of(natively(model)).count('Gather') > 3
    new = natively(relabel(model))
    assert not {'Gather', 'Slice', 'Concat'} & set(kinds_of(new))
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 7), np.float32)
    assert_same(run(new, images), run(model, images))


def test_layers_in_other_groups_are_fed_in_runs(net, run, assert_same):
    made = net(channels=3)
    x = made.conv('images', made.dense(64, 3))
    for _ in range(3):
        x = made.node('Relu', made.conv(x, made.groups(64, 64, 2, 3)))
    model = made.model(made.node('GlobalAveragePool', made.conv(x, made.dense(8, 64))))
    new = natively(relabel(model))
    assert 'Gather' not in kinds_of(new)
    assert kinds_of(new).count('Slice') <= 2 * 4 + 2
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 7), np.float32)
    assert_same(run(new, images), run(model, images))


def test_layers_that_share_the_zeros_of_their_bias_have_orders_of_their_own(net, run, assert_same):
    made = net(channels=3)
    zeros = made.constant(np.zeros(64, np.float32))
    x = made.conv('images', made.dense(64, 3), bias=zeros)
    for _ in range(2):
        x = made.conv(made.node('Relu', x), made.groups(64, 64, 4), bias=zeros)
        x = made.conv(made.node('Relu', x), made.dense(64, 64), bias=zeros)
    model = made.model(made.node('GlobalAveragePool', made.conv(x, made.dense(8, 64))))
    new = natively(relabel(model))
    assert not {'Gather', 'Slice', 'Concat'} & set(kinds_of(new))
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 7), np.float32)
    assert_same(run(new, images), run(model, images))


def test_a_stream_that_comes_out_is_put_in_order_for_the_output_alone(net, run, assert_same):
    made, rng = net(channels=3), np.random.default_rng(1)
    group = rng.permutation(np.arange(64) // 16)
    x, outputs = made.conv('images', made.dense(64, 3)), []
    for _ in range(2):
        y = made.conv(x, made.weight(group[:, None] == group))
        x = made.node('Relu', made.node('Add', x, y))
        outputs.append(x)
    model = made.model(*outputs)
    new = natively(relabel(model))
    kinds = kinds_of(new)
    assert kinds.count('Gather') == len(outputs)
    assert not {'Slice', 'Concat'} & set(kinds)
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 7), np.float32)
    assert_same(run(new, images), run(model, images))


def test_an_output_that_is_read_in_several_orders_stays_in_its_own(net):
    made = net(channels=3)
    x = made.conv('images', made.dense(64, 3))
    model = made.model(x, *(made.conv(x, made.groups(64, 64, 4)) for _ in range(2)))
    outputs = relabel(model).graph.outputs
    assert [value.producer().op_type for value in outputs] == ['Conv', 'Gather', 'Gather']


def test_a_network_without_groups_stays_as_it_is(net):
    made = net(channels=3)
    x = made.conv(made.node('Relu', made.conv('images', made.dense(64, 3))), made.dense(8, 64))
    model = made.model(x)
    assert ir.to_proto(relabel(model)) == ir.to_proto(model)


@pytest.mark.parametrize('layer', ['Conv', 'Gemm'])
def test_boxes_features_are_followed_into_the_layer_that_flattens_them(
    net, run, assert_same, layer
):
    made = net(channels=3)
    made.constant(np.float32(0))
    levels, pooled = [made.conv('images', made.dense(64, 3))], []
    levels.append(made.node('MaxPool', levels[0], kernel_shape=[2, 2], strides=[2, 2]))
    weight = made.constant(made.groups(64, 64, 4, 3))
    boxes = made.constant(np.array([[0, 0, 4, 4], [1, 2, 5, 6]], np.float32))
    images = made.constant(np.zeros(2, np.int64))
    for level in levels:  # in groups of one order
        x = made.conv(level, weight)
        size = dict(output_height=2, output_width=2, sampling_ratio=2)
        pooled.append(made.node('RoiAlign', x, boxes, images, **size))
    order = made.constant(np.array([3, 0, 2, 1]))
    features = made.node('Gather', made.node('Concat', *pooled, axis=0), order, axis=0)
    x = made.node('Flatten', features, axis=1)
    if layer == 'Conv':  # as fully connected layers in groups are written
        x = made.node('Transpose', x, perm=[1, 0])
        for axis in (0, 3):
            x = made.node('Unsqueeze', x, made.constant(np.array([axis])))
        x = made.conv(x, made.dense(8, 256))
    else:
        x = made.node('Gemm', x, made.constant(made.dense(8, 256)[..., 0, 0]), transB=1)
        x = made.node('Reshape', x, made.constant(np.array([4, 8, 1, 1])))
    model = made.model(x)
    new = natively(relabel(model))
    assert kinds_of(natively(model)).count('Gather') > 1
    assert kinds_of(new).count('Gather') == 1  # of boxes
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 8), np.float32)
    assert_same(run(new, images), run(model, images))
