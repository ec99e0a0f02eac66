"""What surrounds the layers of an int8 file, in whole numbers as well."""

import numpy as np
import pytest

pytest.importorskip('onnx_ir')

from mmdet_groupconv.deploy.whole_numbers import give_whole_numbers, pad_whole_numbers


def padded(net, value=0.0, zero=0, mode='constant', read_twice=False, scale=0.03):
    """Pixels, padded and quantised before a convolution."""
    made = net()
    sides = made.constant(np.array([0, 0, 0, 0, 0, 0, 3, 5]))
    inputs = [sides] if value is None else [sides, made.constant(np.float32(value))]
    x = made.node('Pad', 'images', *inputs, mode=mode)
    zeros = np.full(np.shape(scale), zero, np.int8)
    settings = [made.constant(np.array(scale, np.float32)), made.constant(zeros)]
    whole = made.node('QuantizeLinear', x, *settings)
    y = made.conv(made.node('DequantizeLinear', whole, *settings), made.dense(4, 3, 3))
    return made.model(y, made.node('Relu', x)) if read_twice else made.model(y)


def kinds(model):
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize('value', [None, 0.0])
def test_whole_numbers_are_padded_and_nothing_changes(net, run, assert_same, value):
    images = np.random.default_rng(0).standard_normal((1, 3, 7, 9)).astype(np.float32)
    model = padded(net, value)
    expected = run(model, images)
    pad_whole_numbers(model)
    assert kinds(model) == ['QuantizeLinear', 'Pad', 'DequantizeLinear', 'Conv']
    found = run(model, images)
    assert next(iter(found.values())).shape == (1, 4, 10, 14)
    assert_same(found, expected, 0)


@pytest.mark.parametrize(
    'other',
    [
        dict(value=0.5),
        dict(zero=3),
        dict(mode='edge'),
        dict(read_twice=True),
        dict(scale=[0.03, 0.02, 0.01]),  # by channel, which might be padded
    ],
    ids=str,
)
def test_where_that_would_change_something_it_stays(net, other):
    model = padded(net, **other)
    before = kinds(model)
    pad_whole_numbers(model)
    assert kinds(model) == before


def two_outputs(net, in_order):
    """A map that a convolution goes on from in integers, and what that gives.

    in_order: the first as it is, or else with its channels in another order.
    """
    made = net()
    x = made.node('Relu', made.conv('images', made.dense(4, 3)))
    order = made.constant(np.array([2, 0, 3, 1]))
    first = x if in_order else made.node('Gather', x, order, axis=1)
    return made.model(first, made.conv(made.quantised(x), made.dense(5, 4)))


@pytest.mark.parametrize('in_order', [True, False])
def test_an_output_that_is_quantised_for_a_layer_is_what_that_reads(net, run, in_order):
    images = np.random.default_rng(0).standard_normal((1, 3, 7, 9)).astype(np.float32)
    model = two_outputs(net, in_order)
    before = run(model, images)
    give_whole_numbers(model)
    after = run(model, images)
    assert list(after) == list(before)
    first, second = after.values()
    exact, expected = before.values()
    np.testing.assert_array_equal(second, expected)
    np.testing.assert_allclose(first / 0.05, np.rint(first / 0.05), atol=1e-4)
    inside = exact < 127 * 0.05
    np.testing.assert_allclose(first[inside], exact[inside], atol=0.026)


def test_outputs_of_convolutions_and_those_nobody_reads_stay(net):
    made = net()
    first = made.conv('images', made.dense(4, 3))
    last = made.node('Relu', made.conv(made.quantised(first), made.dense(5, 4)))
    model = made.model(first, last)
    give_whole_numbers(model)
    assert [value.producer().op_type for value in model.graph.outputs] == ['Conv', 'Relu']
