"""Graphs whose convolutions are grouped compute what they did."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

import onnx_ir as ir

from mmdet_groupconv.compiler import parting
from mmdet_groupconv.deploy.graph import weight_of
from mmdet_groupconv.deploy.needed import needed_filters
from mmdet_groupconv.deploy.regroup import regroup
from mmdet_groupconv.deploy.ways import ways_of

WIDTHS = 4, 16, 24, 40, 64
KINDS = (
    'grouped', 'dense', 'closed', 'same closed', 'relu', 'clip', 'pool', 'depthwise', 'add',
    'branch',
)  # fmt: skip

steps = st.tuples(
    st.sampled_from(KINDS), st.sampled_from(WIDTHS), st.integers(2, 4), st.sampled_from([1, 3])
)
for_many_networks = settings(max_examples=150, deadline=None, derandomize=True)


def network(net, steps, seed, branches_are_outputs=False):
    """A graph of the steps; each is ``(kind, filters, groups, size of kernel)``."""
    made = net(channels=16, seed=seed)
    x, outputs = made.conv('images', made.dense(40, 16)), []
    for kind, filters, groups, size in steps:
        channels = made.channels[x]
        stride = 2 if filters == 24 else 1
        if kind == 'grouped':
            x = made.conv(x, made.groups(filters, channels, groups, size), stride=stride)
        elif kind == 'dense':
            x = made.conv(x, made.dense(filters, channels, size), stride=stride)
        elif kind == 'closed':  # groups that leave out channels, others without any
            connected = made.groups(filters, channels, groups)[..., 0, 0] != 0
            connected[:, made.rng.random(channels) < 0.6] = False
            x = made.conv(x, made.weight(connected, size), stride=stride)
        elif kind == 'same closed':  # all filters leave out the same channels
            read = np.arange(channels) >= channels - 10
            x = made.conv(x, made.weight(np.tile(read, (filters, 1)), size), stride=stride)
        elif kind == 'relu':
            x = made.node('Relu', x)
        elif kind == 'pool':
            x = made.node('MaxPool', x, kernel_shape=[1, 1])
        elif kind == 'clip':
            limits = [made.constant(np.float32(value)) for value in (-1, 1)]
            x = made.node('Clip', x, *limits)
        elif kind == 'depthwise':
            x = made.conv(x, made.dense(channels, 1, size), stride=stride, group=channels)
        elif kind == 'add':
            x = made.node('Add', x, made.conv(x, made.groups(channels, channels, groups, size)))
        else:
            outputs.append(
                x if branches_are_outputs else made.node('MaxPool', x, kernel_shape=[1] * 2)
            )
    return made.model(*dict.fromkeys([*outputs, x]))


def ways_by_name(model):
    """Of the convolutions whose filters or channels are worth parting, all that can be tried."""
    needed = needed_filters(model.graph)
    weights = {node.outputs[0]: weight_of(node) for node in model.graph}
    return {y.name: ways_of(w, needed[y]) for y, w in weights.items() if w is not None}


@for_many_networks
@given(
    st.lists(steps, min_size=1, max_size=6),
    st.integers(0, 100),
    st.lists(st.integers(0, 20), min_size=8, max_size=8),
    st.booleans(),
)
def test_networks_compute_the_same_in_any_ways(net, run, assert_same, steps, seed, picks, outputs):
    model = network(net, steps, seed, outputs)
    ways = {}
    for number, (name, tried) in enumerate(ways_by_name(model).items()):
        pick = picks[number % len(picks)]
        if len(tried) > 1 or pick > 10:  # the others stay, or are written with what they need
            ways[name] = tried[pick % len(tried)]
    images = np.random.default_rng(0).standard_normal((2, 16, 9, 7), np.float32)
    assert_same(run(regroup(model, ways), images), run(model, images))


@pytest.mark.parametrize('kinds', [['relu'], ['clip', 'depthwise'], ['add'], ['branch', 'relu']])
@pytest.mark.parametrize('size', [1, 3])
def test_every_way_of_two_grouped_layers_computes_the_same(net, run, assert_same, kinds, size):
    between = [(kind, 0, 4, 3) for kind in kinds]
    model = network(net, [('grouped', 64, 4, size), *between, ('grouped', 64, 2, size)], 0)
    _, *between, second = ways_by_name(model).items()
    first = between[0]
    images = np.random.default_rng(0).standard_normal((1, 16, 9, 7), np.float32)
    expected = run(model, images)
    pairs = [(one, other) for one in first[1] for other in second[1]]
    assert len(pairs) >= 9
    for one, other in pairs:
        new = regroup(model, {first[0]: one, second[0]: other})
        assert_same(run(new, images), expected)


@pytest.mark.parametrize('native', [False, True])
@pytest.mark.parametrize('between', ['nothing', 'relu', 'depthwise'])
def test_integers_stay_integers_in_any_way(net, run, assert_same, native, between):
    made = net(channels=16)
    x = made.conv('images', made.dense(64, 16))
    first = made.conv(made.quantised(x), made.whole(made.groups(64, 64, 4, 3)))
    x = made.node('Relu', first) if between == 'relu' else first
    if between == 'depthwise':
        x = made.conv(made.quantised(x), made.whole(made.dense(64, 1, 3)), group=64)
    second = made.conv(made.quantised(x), made.whole(made.groups(64, 64, 2, 3)))
    model = made.model(made.node('Relu', second))
    ways = {
        name: next(w for w in tried if w.native == native and len(w.bundles) > 1)
        for name, tried in ways_by_name(model).items()
        if name in (first, second)
    }
    new = regroup(model, ways)
    images = np.random.default_rng(0).standard_normal((1, 16, 9, 7), np.float32)
    # The last digit may round.
    assert_same(run(new, images, in_floats=True), run(model, images, in_floats=True), 0.02)
    whole = [
        node.inputs[0].const_value
        for node in new.graph
        if node.op_type == 'DequantizeLinear' and node.inputs[0].is_initializer()
    ]
    assert {tensor.dtype for tensor in whole} == {ir.DataType.INT8}
    grouped = sum(tensor.size for tensor in whole if tensor.shape[1] > 1)
    assert grouped == 64 * (16 + 32) * 9


@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps=st.tuples(st.sampled_from(WIDTHS), st.integers(2, 4)), seed=st.integers(0, 100))
def test_no_more_is_computed_than_the_bundles_say(net, connections, steps, seed):
    filters, groups = steps
    made = net(channels=64, seed=seed)
    weight = made.groups(filters, 64, groups, 3)
    model = made.model(made.conv('images', weight))
    for ways in ways_by_name(model).values():
        for way in ways:
            work = 9 * sum(bundle.work for bundle in way.bundles)
            found = sum(connections(regroup(model, {model.graph.outputs[0].name: way})))
            assert found <= (1.3 if way.native else 1) * work


@pytest.mark.parametrize('native', [False, True])
def test_four_groups_are_a_quarter_of_the_work(net, connections, native):
    made = net(channels=64)
    model = made.model(made.conv('images', made.groups(64, 64, 4, 3)))
    ((name, ways),) = ways_by_name(model).items()
    way = next(way for way in ways if way.native == native and len(way.bundles) == 4)
    assert sum(connections(model)) == 64 * 64 * 9
    assert sum(connections(regroup(model, {name: way}))) == 64 * 16 * 9


def test_filters_that_nobody_reads_are_gone(net, run, assert_same, connections):
    made = net(channels=16)
    first = made.conv('images', made.dense(64, 16))
    read = np.arange(64) % 2 == 0
    second = made.conv(made.node('Relu', first), made.weight(np.tile(read, (16, 1))))
    model = made.model(second)
    ways = {name: tried[0] for name, tried in ways_by_name(model).items()}
    new = regroup(model, ways)
    assert connections(new) == [32 * 16, 16 * 32]
    images = np.random.default_rng(0).standard_normal((1, 16, 5, 5), np.float32)
    assert_same(run(new, images), run(model, images))


@pytest.mark.parametrize(('block', 'filters'), [(16, 32), (8, 24)])
def test_filters_fill_whole_blocks(block, filters, net, run, assert_same, connections, monkeypatch):
    """onnxruntime has no fast depthwise convolution of other numbers of channels."""
    monkeypatch.setattr(parting, 'BLOCK', block)
    made = net(channels=16)
    first = made.conv('images', made.dense(64, 16))
    x = made.conv(first, made.dense(64, 1, 3), group=64)
    second = made.conv(x, made.weight(np.tile(np.arange(64) < 21, (16, 1))))
    model = made.model(second)
    new = regroup(model, {name: tried[0] for name, tried in ways_by_name(model).items()})
    assert connections(new) == [filters * 16, filters * 9, 16 * filters]
    images = np.random.default_rng(0).standard_normal((1, 16, 5, 5), np.float32)
    assert_same(run(new, images), run(model, images))


def test_integers_with_a_scale_a_channel_need_no_order(net, run, assert_same):
    made = net(channels=16)
    first = made.conv('images', made.dense(64, 16))
    scales = np.linspace(0.02, 0.08, 64, dtype=np.float32)
    each = made.constant(scales), made.constant(np.full(64, 128, np.uint8))
    x = made.node('DequantizeLinear', made.node('QuantizeLinear', first, *each), *each)
    x = made.conv(x, made.whole(made.dense(64, 1, 3)), group=64)
    second = made.conv(x, made.weight(np.tile(np.arange(64) % 3 == 0, (16, 1))))
    model = made.model(second)
    new = regroup(model, {name: tried[0] for name, tried in ways_by_name(model).items()})
    assert {node.op_type for node in new.graph} == {'Conv', 'QuantizeLinear', 'DequantizeLinear'}
    weights = [node.inputs[1].const_value for node in new.graph if node.op_type == 'Conv']
    assert weights[0].shape == (32, 16, 1, 1)
    images = np.random.default_rng(0).standard_normal((1, 16, 5, 5), np.float32)
    assert_same(run(new, images), run(model, images))


def test_channels_that_were_left_out_are_not_counted_as_others(net, run, assert_same):
    """A layer whose filters all read the same few channels stays as it is; its input does not."""
    made = net(channels=16)
    first = made.conv('images', made.groups(64, 16, 4))
    read = np.arange(64) >= 54
    second = made.conv(first, made.weight(np.tile(read, (16, 1))))
    model = made.model(second)
    name, tried = next(iter(ways_by_name(model).items()))
    images = np.random.default_rng(0).standard_normal((1, 16, 5, 5), np.float32)
    for way in tried:
        assert_same(run(regroup(model, {name: way}), images), run(model, images))


def test_groups_that_fit_each_other_need_no_reordering(net):
    made = net(channels=64)
    x = made.conv('images', made.groups(64, 64, 4, 3, mixed=False))
    x = made.conv(made.node('Relu', x), made.groups(64, 64, 4, mixed=False))
    model = made.model(x)
    ways = {
        name: next(way for way in tried if way.native)
        for name, tried in ways_by_name(model).items()
    }
    kinds = [node.op_type for node in regroup(model, ways).graph]
    first = kinds.index('Conv')
    assert kinds[first : first + 3] == ['Conv', 'Relu', 'Conv']


@pytest.mark.parametrize('kind', ['MaxPool', 'GlobalAveragePool'])
def test_a_map_is_put_in_order_behind_its_pooling(net, kind):
    made = net()
    x = made.conv('images', made.groups(64, 16, 4)[np.random.default_rng(0).permutation(64)])
    shape = dict(kernel_shape=[2, 2], strides=[2, 2]) if kind == 'MaxPool' else {}
    model = made.model(made.node(kind, x, **shape))
    native = next(way for way in ways_by_name(model)[x] if way.native)
    kinds = [node.op_type for node in regroup(model, {x: native}).graph]
    assert kinds[-2:] == [kind, 'Gather']


def test_an_output_that_is_also_read_is_there_before_its_readers(net, run, assert_same):
    made = net(channels=64)
    x = made.conv('images', made.groups(64, 64, 4))
    pooled = made.node('MaxPool', x, kernel_shape=[2, 2])
    behind = made.conv(x, made.dense(16, 64))
    model = made.model(x, pooled, behind)
    images = np.random.default_rng(0).standard_normal((1, 64, 6, 6), np.float32)
    for way in ways_by_name(model)[x]:
        assert_same(run(regroup(model, {x: way}), images), run(model, images))


def test_without_ways_the_graph_stays_as_it_is(net):
    model = network(net, [('grouped', 64, 4, 3), ('relu', 0, 2, 1), ('add', 0, 2, 3)], 0)
    before = ir.to_proto(model)
    assert ir.to_proto(regroup(model, {})) == before
    for name, tried in ways_by_name(model).items():
        regroup(model, {name: tried[-1]})
    assert ir.to_proto(model) == before


def test_equal_nodes_and_constants_are_written_once(net):
    made = net(channels=64)
    read = [made.constant(made.groups(64, 64, 4)) for _ in range(2)]
    x = made.conv('images', made.dense(64, 64))
    layers = [made.conv(made.node('Relu', x), weight, bias=False) for weight in (*read, *read[:1])]
    model = made.model(*(made.node('MaxPool', y, kernel_shape=[1, 1]) for y in layers))
    ways = {name: tried[-1] for name, tried in ways_by_name(model).items() if len(tried) > 1}
    new = regroup(model, ways)
    kinds = [node.op_type for node in new.graph]
    assert (kinds.count('Relu'), kinds.count('Conv')) == (1, 3)
    held = [tensor.tobytes() for tensor in new.graph.initializers.tensors()]
    assert len(set(held)) == len(held)


def test_what_nobody_reads_is_not_written(net):
    made = net()
    out = made.conv('images', made.dense(4, 3))
    made.node('Relu', made.conv('images', made.dense(5, 3)))
    new = regroup(made.model(out), {})
    (conv,) = new.graph
    assert {*new.graph.initializers.values()} == {*conv.inputs[1:]}
