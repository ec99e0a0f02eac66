"""What is kept by groups that are chosen, free, contiguous and random."""

import numpy as np
import pytest

from mmdet_groupconv.grouping import Ends, Groups, Spaces, compare_orders

CHAIN = Spaces({'a': Ends(0, 1), 'b': Ends(1, 2)}, {0: 8, 1: 8, 2: 8}, set())
BLOCK = np.arange(8) // 4


def groups_of(filters, channels, importance):
    same = np.asarray(filters)[:, None] == np.asarray(channels)
    return Groups(2, channels, filters, importance[same].sum() / importance.sum())


def test_contiguous_blocks_are_found_in_full():
    importance = {'a': 1.0 * (BLOCK[:, None] == BLOCK), 'b': np.ones((8, 8))}
    plan = {'a': groups_of(BLOCK, BLOCK, importance['a'])}
    kept = compare_orders(importance, CHAIN, plan)
    assert kept == pytest.approx(dict(shared=1, free=1, contiguous=1, random=0.5))


def test_free_orders_keep_what_sharing_can_not():
    mixed = np.arange(8) % 2
    importance = {
        'a': 1.0 * (BLOCK[:, None] == BLOCK),
        'b': 1.0 * (mixed[:, None] == mixed),
    }
    plan = {name: groups_of(BLOCK, BLOCK, weights) for name, weights in importance.items()}
    kept = compare_orders(importance, CHAIN, plan)
    assert kept['free'] == pytest.approx(1)
    assert kept['shared'] == pytest.approx(0.75)
    assert kept['contiguous'] == pytest.approx(0.75)


def test_nothing_grouped_is_nothing_to_compare():
    dense = Groups(1, np.zeros(8, int), np.zeros(8, int), 1.0)
    assert compare_orders({'a': np.ones((8, 8))}, CHAIN, {'a': dense}) == {}
