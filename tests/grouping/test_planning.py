"""Groups for a whole network and a budget."""

import numpy as np
import pytest

from mmdet_groupconv.grouping import Clusters, Ends, GroupPlanner, Spaces

# Two residual blocks: a stream (0), each with a space of its own between two layers.
BLOCKS = Spaces(
    {
        'stem': Ends(None, 0),
        'a.conv1': Ends(0, 1),
        'a.conv2': Ends(1, 0),
        'b.conv1': Ends(0, 2),
        'b.conv2': Ends(2, 0),
    },
    {0: 32, 1: 32, 2: 32},
    {0},
)


def cut(importance):
    """A loss that is what is cut of a layer's importance."""
    return lambda name, groups: (1 - groups.kept) * importance[name].sum()


def test_meets_the_budget_with_powers_of_two_where_least_is_lost():
    rng = np.random.default_rng(0)
    names = ['a.conv1', 'a.conv2', 'b.conv1', 'b.conv2']
    importance = {name: rng.random((32, 32)) for name in names}
    block = np.arange(32) // 8
    importance['b.conv2'] = 1.0 * (block[:, None] == block)  # loses nothing in four groups
    macs = dict.fromkeys(names, 100.0)
    plan = GroupPlanner(importance, BLOCKS, macs, cut(importance), align=4).plan(250.0)
    numbers = {name: groups.number if groups else 1 for name, groups in plan.items()}
    assert set(numbers.values()) <= {1, 2, 4, 8}
    assert 200 < sum(macs[name] / numbers[name] for name in names) <= 251
    assert plan['b.conv2'].number == 4
    assert plan['b.conv2'].kept == pytest.approx(1)
    for name, groups in ((name, groups) for name, groups in plan.items() if groups):
        same = groups.filters[:, None] == groups.channels
        kept = importance[name][same].sum() / importance[name].sum()
        assert groups.kept == pytest.approx(kept)


def test_clusters_and_groups_share_a_budget():
    rng = np.random.default_rng(1)
    importance = {'a.conv1': rng.random((32, 32)), 'fc': rng.random((32, 64))}
    spaces = BLOCKS._replace(layers={**BLOCKS.layers, 'fc': Ends(None, 3)})
    macs = {'a.conv1': 100.0, 'fc': 100.0}
    planner = GroupPlanner(importance, spaces, macs, cut(importance), clustered=['fc'], align=4)
    plan = planner.plan(100.0)
    assert isinstance(plan['fc'], Clusters)
    done = macs['fc'] * plan['fc'].mask.mean() + macs['a.conv1'] / plan['a.conv1'].number
    assert 85 < done <= 101


def test_what_can_not_be_grouped_stays_dense():
    spaces = Spaces({'a': Ends(0, 1), 'odd': Ends(1, 2)}, {0: 32, 1: 32, 2: 27}, set())
    importance = {'a': np.ones((32, 32)), 'odd': np.ones((27, 32))}
    macs = dict(a=100.0, odd=10.0)
    plan = GroupPlanner(importance, spaces, macs, cut(importance), align=4).plan(60.0)
    assert plan['odd'] is None
    assert plan['a'].number == 2


def test_a_budget_that_can_not_be_met_is_refused():
    importance = {'a.conv1': np.ones((32, 32))}
    with pytest.raises(ValueError, match='can not be met'):
        GroupPlanner(importance, BLOCKS, {'a.conv1': 100.0}, cut(importance), align=4).plan(10.0)
