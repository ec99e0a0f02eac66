"""Clusters of equal size that may read the same channels."""

import numpy as np
import pytest

from mmdet_groupconv.grouping import plan_clusters, regular_clusters


def test_clusters_are_equal_and_read_equally_many_channels():
    found = regular_clusters(np.random.default_rng(0).random((16, 12)), groups=4, channels=5)
    assert np.bincount(found.labels).tolist() == [4] * 4
    assert found.reads.sum(axis=1).tolist() == [5] * 4
    assert found.mask.shape == (16, 12)


def test_finds_overlapping_clusters_that_lose_nothing():
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.arange(16) // 8)
    reads = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]])
    importance = reads[labels] * rng.uniform(0.5, 1, (16, 6))
    found = regular_clusters(importance, groups=2, channels=4)
    assert importance[found.mask].sum() == pytest.approx(importance.sum())


def test_plan_meets_the_budget_in_multiples_of_align():
    rng = np.random.default_rng(2)
    importance = {'plain': rng.random((16, 16)), 'sharp': rng.random((16, 16)) ** 8}
    macs = dict(plain=100.0, sharp=100.0)
    plan = plan_clusters(importance, macs, 100.0, align=4, groups=4)
    read = {name: int(clusters.reads[0].sum()) for name, clusters in plan.items() if clusters}
    assert all(number % 4 == 0 for number in read.values())
    done = sum(macs[name] * read.get(name, 16) / 16 for name in macs)
    assert done == pytest.approx(100.0)


def test_layers_that_do_not_part_stay_dense():
    importance = {'odd': np.ones((9, 16)), 'even': np.ones((16, 16))}
    plan = plan_clusters(importance, dict(odd=10.0, even=90.0), 60.0, align=4)
    assert plan['odd'] is None
    assert plan['even'] is not None
