"""How convolutions are computed is chosen by trying."""

import numpy as np
import pytest

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

from mmdet_groupconv.deploy import plan
from mmdet_groupconv.deploy.graph import scale_of
from mmdet_groupconv.deploy.plan import choose_ways, race
from mmdet_groupconv.deploy.regroup import regroup
from mmdet_groupconv.deploy.runtime import Runtime, session

SHAPE = 12, 10
IMAGE = np.zeros((1, 3, *SHAPE), np.float32)
ONE = Runtime(threads=1)


@pytest.fixture
def raced(monkeypatch):
    """The models of each race, whose last way wins."""
    races = []

    def made_up(models, inputs, runtime, most_off):
        races.append(models)
        return [float(len(models) - number) for number in range(len(models))]

    monkeypatch.setattr(plan, 'race', made_up)
    return races


def outputs_of(models):
    """What the models of a race compute from the same noise."""
    rng = np.random.default_rng(0)
    noise = {
        x.name: rng.standard_normal(x.shape.numpy(), np.float32) for x in models[0].graph.inputs
    }
    return [session(model, 1).run(None, noise)[0] for model in models]


def closed(made, filters, channels, read):
    """A weight whose filters all read the same channels."""
    connected = np.zeros((filters, channels))
    connected[:, read] = 1
    return made.weight(connected)


def test_the_fastest_way_is_taken(net, monkeypatch):
    made = net(channels=3)
    x = made.conv('images', made.dense(64, 3))
    x = made.conv(x, made.groups(64, 64, 4, 3))
    model = made.model(made.node('Relu', x))
    for fastest, bundles, native in ((0, 1, False), (1, 4, False), (2, 4, True)):
        seconds = [2.0] * 3
        seconds[fastest] = 1.0
        monkeypatch.setattr(plan, 'race', lambda *_, seconds=seconds: seconds)
        way = choose_ways(model, IMAGE, ONE)[x]
        assert (len(way.bundles), way.native) == (bundles, native)


def test_each_layer_is_tried_alone_between_others(net, raced):
    made = net()
    x = made.conv('images', made.dense(64, 3), stride=2)
    x = made.conv(x, made.groups(64, 64, 4, 3), stride=2)
    x = made.conv(made.node('Relu', x), made.groups(40, 64, 2))
    model = made.model(made.node('Relu', x))
    choose_ways(model, IMAGE, ONE)
    assert len(raced) == 2
    sizes = [[list(value.shape) for value in models[0].graph.inputs] for models in raced]
    assert sizes == [[[1, 64, 6, 5]], [[1, 64, 3, 3], [1, 40, 3, 3]]]  # the last one is added
    for models in raced:
        first, *others = outputs_of(models)
        assert len(others) >= 2
        for other in others:
            np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('stride', 'padding'), [(1, 0), (2, 0), (2, 1)])
def test_layers_with_any_padding_can_be_tried(net, raced, stride, padding):
    made = net()
    x = made.conv('images', made.dense(64, 3))
    x = made.conv(x, made.groups(64, 64, 4, 3), stride=stride, padding=padding)
    choose_ways(made.model(made.node('Relu', x)), IMAGE, ONE)
    (models,) = raced
    assert np.isfinite(outputs_of(models)).all()


def test_layers_that_share_a_weight_get_one_choice_where_the_map_is_largest(net, raced):
    made = net()
    weight = made.constant(made.groups(64, 64, 4, 3))
    first = made.conv('images', made.dense(64, 3))
    second = made.conv(first, made.dense(64, 64), stride=2)
    one, other = (made.conv(x, weight) for x in (second, first))
    outputs = [made.node('Relu', x) for x in (one, other)]
    ways = choose_ways(made.model(*outputs), IMAGE, ONE)
    assert ways[one] is ways[other]
    assert len(raced) == 1
    assert raced[0][0].graph.inputs[0].shape == [1, 64, *SHAPE]


def test_dense_layers_stay(net, raced):
    made = net()
    plain = made.conv('images', made.dense(16, 3))
    before = made.conv(made.node('Relu', plain), made.dense(64, 16))
    grouped = made.conv(made.node('Relu', before), made.groups(64, 64, 4))
    behind = made.conv(grouped, made.dense(16, 64))
    ways = choose_ways(made.model(behind), IMAGE, ONE)
    assert set(ways) == {grouped}
    assert len(raced) == 1


def test_a_dense_graph_has_nothing_to_choose(net, raced):
    made = net()
    assert choose_ways(made.model(made.conv('images', made.dense(16, 3))), IMAGE, ONE) == {}
    assert choose_ways(made.model(made.node('Relu', 'images')), IMAGE, ONE) == {}
    assert raced == []


def test_channels_that_a_layer_leaves_out_are_left_out_before_it(
    net, raced, run, assert_same, connections
):
    made = net()
    first = made.conv('images', made.dense(64, 3))
    x = made.conv(made.node('Relu', first), made.groups(64, 64, 4))
    last = made.conv(x, closed(made, 16, 64, np.arange(48, 64)))
    model = made.model(last)
    new = regroup(model, choose_ways(model, IMAGE, ONE))
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 7), np.float32)
    assert_same(run(new, images), run(model, images))
    assert sum(connections(new)) < sum(connections(model)) / 2


def hidden(net, first):
    """A depthwise convolution between `first` and one that reads 20 of its 64 channels."""
    made = net()
    x = made.conv('images', made.dense(64, 3))
    if first == 'sum':
        x = made.node('Add', x, made.conv('images', made.dense(64, 3)))
    depthwise = made.conv(x, made.dense(64, 1, 3), group=64)
    last = made.conv(made.node('Relu', depthwise), closed(made, 64, 64, np.arange(7, 27)))
    return made.model(made.node('Relu', last)), depthwise, last


def test_a_depthwise_layer_may_leave_out_channels_that_nobody_reads(
    net, raced, run, assert_same, connections
):
    model, depthwise, _ = hidden(net, 'sum')
    ways = choose_ways(model, IMAGE, ONE)
    assert ways[depthwise].bundles[0].reads.tolist() == list(range(7, 27))
    (models,) = raced  # the layer in each way behind a whole one, and behind one that leaves out
    found = [{64 * 9, 32 * 9}.intersection(connections(made)) for made in models]
    half = len(models) // 2
    assert found == [{64 * 9}] * half + [{32 * 9}] * half
    first, *others = outputs_of(models)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-4)
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 7), np.float32)
    new = regroup(model, ways)
    assert_same(run(new, images), run(model, images))
    assert connections(new)[2:] == [32 * 9, 64 * 32]


def test_a_depthwise_layer_stays_whole_where_that_is_faster(net, monkeypatch):
    model, _, last = hidden(net, 'sum')
    monkeypatch.setattr(plan, 'race', lambda models, *_: [float(i) for i in range(len(models))])
    assert set(choose_ways(model, IMAGE, ONE)) == {last}


def test_what_is_not_computed_before_a_layer_is_not_gathered_for_it(
    net, raced, run, assert_same, connections
):
    model, *_ = hidden(net, 'convolution')
    ways = choose_ways(model, IMAGE, ONE)
    (models,) = raced
    assert all(32 in connections(made) for made in models)  # what gives it its input
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 7), np.float32)
    new = regroup(model, ways)
    assert_same(run(new, images), run(model, images))
    assert connections(new) == [32 * 3, 32 * 9, 64 * 32]
    assert {node.op_type for node in new.graph} == {'Conv', 'Relu'}


def test_less_than_a_block_is_not_left_out(net, raced):
    made = net()
    first = made.conv('images', made.dense(64, 3))
    last = made.conv(made.node('Relu', first), closed(made, 64, 64, np.arange(50)))
    assert choose_ways(made.model(made.node('Relu', last)), IMAGE, ONE) == {}


def test_a_race_gives_the_seconds_of_each_model(net):
    made = net()
    small = made.model(made.conv('images', made.dense(4, 3)))
    large = made.model(made.conv('images', made.dense(512, 3, 7)))
    images = np.zeros((1, 3, 64, 64), np.float32)
    fast, slow = race([small, large], dict(images=images), ONE)
    assert 0 < fast < slow


def one_layer(net, weight, in_integers):
    """Named y, between two others."""
    made = net()
    x = made.conv('images', made.dense(64, 3))
    made.nodes[-1].output[0] = 'x'
    made.channels['x'] = made.channels[x]
    x = made.quantised('x') if in_integers else 'x'
    made.conv(x, made.whole(weight) if in_integers else weight)
    made.nodes[-1].output[0] = 'y'
    return made.model(made.node('Relu', 'y'))


def test_layers_in_integers_are_tried_as_such(net, raced):
    weight = net().groups(64, 64, 4, 3)
    choose_ways(one_layer(net, weight, False), IMAGE, ONE, one_layer(net, weight, True))
    (models,) = raced
    assert len(models) > 2
    for model in models:  # and so are those around them
        convs = [node for node in model.graph if node.op_type == 'Conv']
        assert all(scale_of(node.inputs[1]) is not None for node in convs)
        assert sum(node.op_type == 'QuantizeLinear' for node in model.graph) >= 3
    first, *others = outputs_of(models)
    for other in others:
        np.testing.assert_allclose(other, first, rtol=0.05, atol=0.02)


def test_zeros_are_those_of_the_floats(net, raced):
    weight = net().groups(64, 64, 4)
    weight[:, ::2] *= 1e-4  # rounded to nothing
    found = choose_ways(one_layer(net, weight, False), IMAGE, ONE, one_layer(net, weight, True))
    way = found['y']
    assert [len(bundle.reads) for bundle in way.bundles] == [16] * 4


def test_a_model_that_computes_something_else_does_not_win(net):
    made = net()
    weight = made.dense(64, 3, 7)
    models = []
    for other in (weight, 1.001 * weight, 1.1 * weight):
        made = net()
        models.append(made.model(made.conv('images', other.astype(np.float32), bias=False)))
    images = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
    first, second, third = race(models, dict(images=images), ONE, 1e-3)
    assert first < np.inf
    assert second < np.inf
    assert third == np.inf
    assert race(models, dict(images=images), ONE)[2] < np.inf


def test_what_is_right_wins_where_the_runtime_errs_on_the_first_model(net, monkeypatch):
    weight, models, original = net().dense(64, 3, 7), [], Runtime.open
    for _ in range(2):
        made = net()
        models.append(made.model(made.conv('images', weight, bias=False)))

    def wrong(runtime, model):
        run, about = original(runtime, model)
        return (lambda inputs: [2 * y for y in run(inputs)]) if model is models[0] else run, about

    monkeypatch.setattr(Runtime, 'open', wrong)
    images = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
    first, second = race(models, dict(images=images), ONE, 1e-3)
    assert first == np.inf
    assert second < np.inf
