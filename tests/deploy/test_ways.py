"""Weights with zeros in them are parted into bundles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('onnx_ir')

from mmdet_groupconv.deploy.ways import ways_of

EXACTLY_FOUR = np.kron(np.eye(4), np.ones((16, 16)))  # 64 channels


def weight_of(connected, size=1):
    weight = np.random.default_rng(0).uniform(0.5, 1.0, (*np.shape(connected), size, size))
    return (weight * np.asarray(connected)[..., None, None]).astype(np.float32)


@st.composite
def layers(draw):
    """A weight whose filters have a few patterns of zeros, and which filters are needed."""
    filters, channels = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    patterns = rng.random((draw(st.integers(1, 5)), channels)) < draw(st.floats(0, 1))
    connected = patterns[rng.integers(len(patterns), size=filters)]
    needed = rng.random(filters) < draw(st.floats(0, 1))
    needed[rng.integers(filters)] = True
    return weight_of(connected, draw(st.sampled_from([1, 3]))), needed


for_many_layers = settings(max_examples=60, deadline=None, derandomize=True)


@for_many_layers
@given(layers())
def test_the_first_way_is_one_convolution_of_all_that_is_there(layer):
    weight, needed = layer
    first = ways_of(weight, needed)[0]
    (bundle,) = first.bundles
    assert not first.native
    assert bundle.filters.tolist() == needed.nonzero()[0].tolist()
    assert bundle.reads.tolist() == list(range(weight.shape[1]))


@for_many_layers
@given(layers())
def test_every_needed_filter_is_in_exactly_one_bundle(layer):
    weight, needed = layer
    for way in ways_of(weight, needed):
        filters = np.concatenate([bundle.filters for bundle in way.bundles])
        assert sorted(filters) == needed.nonzero()[0].tolist()


@for_many_layers
@given(layers())
def test_other_bundles_read_what_their_filters_are_connected_to_and_nothing_else(layer):
    weight, needed = layer
    for way in ways_of(weight, needed)[1:]:
        for filters, reads in way.bundles:
            connected = (weight[filters] != 0).any(axis=(0, 2, 3)).nonzero()[0].tolist()
            assert reads.tolist() == (connected or [0])  # a convolution of nothing is none


@for_many_layers
@given(layers())
def test_no_way_is_tried_twice(layer):
    ways = ways_of(*layer)
    seen = {(way.native, *sorted((*b.filters, -1, *b.reads) for b in way.bundles)) for way in ways}
    assert len(seen) == len(ways)


@for_many_layers
@given(layers())
def test_equal_groups_are_tried_where_they_pad_little(layer):
    ways = [way for way in ways_of(*layer) if len(way.bundles) > 1]
    for way in ways:
        sizes = [(len(bundle.filters), len(bundle.reads)) for bundle in way.bundles]
        blocks = [[-(-n // 16) * 16 for n in size] for size in sizes]
        padded = len(blocks) * max(k for k, _ in blocks) * max(c for _, c in blocks)
        little = padded <= 1.3 * sum(k * c for k, c in blocks)
        same = [other.native for other in ways if other.bundles is way.bundles]
        assert same == ([False, True] if little else [False])


@pytest.mark.parametrize('size', [1, 3])
def test_dense_weights_have_one_way(size):
    weight = weight_of(np.ones((64, 64)), size)
    assert len(ways_of(weight, np.ones(64, bool))) == 1
    weight[0, 0] = 0  # hardly anything to gain
    assert len(ways_of(weight, np.ones(64, bool))) == 1


def test_zeros_in_filters_that_nobody_needs_are_no_groups():
    connected = np.ones((64, 64))
    connected[32:, 16:] = 0
    needed = np.arange(64) < 32
    assert len(ways_of(weight_of(connected), needed)) == 1
    same = ways_of(weight_of(connected), ~needed)  # they all read the same
    assert [len(way.bundles[0].reads) for way in same] == [64, 16]


def test_groups_are_found_in_any_order():
    rng = np.random.default_rng(0)
    connected = EXACTLY_FOUR[rng.permutation(64)][:, rng.permutation(64)]
    ways = ways_of(weight_of(connected, 3), np.ones(64, bool))
    exact = [way for way in ways if sum(bundle.work for bundle in way.bundles) == 64 * 64 // 4]
    assert [way.native for way in exact] == [False, True]
    for filters, reads in exact[0].bundles:
        assert len(filters) == len(reads) == 16


def test_equal_groups_may_have_more_filters_than_channels():
    for shape in ((32, 16), (16, 32)):
        connected = np.kron(np.eye(2), np.ones(shape))
        ways = ways_of(weight_of(connected), np.ones(len(connected), bool))
        assert [way.native for way in ways] == [False, False, True], shape
