"""Filters that read alike are computed together."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmdet_groupconv.compiler import parting
from mmdet_groupconv.compiler.parting import bundlings

several = settings(max_examples=40, deadline=None, derandomize=True)
any_connections = st.tuples(st.integers(1, 12), st.integers(1, 8)).flatmap(
    lambda shape: arrays(bool, shape)
)


def blocks(filters, channels, groups):
    """Connections of groups that take turns: number n belongs to group n mod `groups`."""
    return np.arange(filters)[:, None] % groups == np.arange(channels) % groups


def cost(connected, labels, area, gather):
    """What the module says: filters by tiles, and each channel gathered once for a bundle."""
    total = 0
    for label in np.unique(labels):
        own = connected[labels == label]
        tiled = -(-len(own) // parting.BLOCK) * parting.BLOCK
        total += own.any(axis=0).sum() * (tiled * area + gather) + 1
    return total


@several
@given(connected=any_connections, area=st.sampled_from([1, 9]))
def test_every_filter_gets_a_bundle_in_every_way(connected, area):
    ways = bundlings(connected, area)
    assert all(way.shape == (len(connected),) for way in ways)
    assert not ways[0].any()


@several
@given(connected=any_connections, area=st.sampled_from([1, 9]))
def test_no_way_is_there_twice(connected, area):
    ways = bundlings(connected, area)
    assert len({tuple(way) for way in ways}) == len(ways) <= 1 + len(parting._GATHERS)


def test_filters_that_all_read_the_same_are_one_bundle():
    assert len(bundlings(np.ones((64, 64), bool), 9)) == 1
    assert len(bundlings(np.zeros((64, 64), bool), 9)) == 1


@pytest.mark.parametrize('groups', [2, 4])
def test_groups_that_share_nothing_are_told_apart(groups):
    ways = bundlings(blocks(64, 64, groups), 9)
    parts = [{frozenset(np.flatnonzero(way == label)) for label in set(way)} for way in ways]
    assert {frozenset(range(group, 64, groups)) for group in range(groups)} in parts


def test_a_map_that_is_costly_to_gather_is_parted_less():
    connected = blocks(64, 64, 4)
    connected[:, :32] = True  # what all read is gathered once more for each bundle
    numbers = [len(set(way)) for way in bundlings(connected, 1)[1:]]
    assert numbers == sorted(numbers, reverse=True)


@several
@given(data=st.data())
def test_a_row_is_cut_where_that_costs_least(data):
    connected = data.draw(arrays(bool, (data.draw(st.integers(1, 7)), 5)))
    area, gather = data.draw(st.sampled_from([1, 9])), data.draw(st.sampled_from([0, 20, 200]))
    cuts = np.arange(len(connected) + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parting, 'BLOCK', data.draw(st.sampled_from([1, 2])))
        found = parting._cut(cuts, parting._unions(connected, cuts), area, gather)
        every_way = [
            np.cumsum([0, *steps]) for steps in itertools.product([0, 1], repeat=len(connected) - 1)
        ]
        least = min(cost(connected, way, area, gather) for way in every_way)
        assert cost(connected, found, area, gather) == least


@several
@given(data=st.data())
def test_a_way_never_costs_more_than_one_bundle(data):
    connected = blocks(data.draw(st.integers(1, 80)), data.draw(st.integers(1, 80)), 5)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    connected = connected[rng.permutation(len(connected))]
    ways = bundlings(connected, 9)
    least = {
        gather: min(cost(connected, way, 9, gather) for way in ways) for gather in parting._GATHERS
    }
    assert all(least[gather] <= cost(connected, ways[0], 9, gather) for gather in least)
