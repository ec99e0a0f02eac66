"""Clusters of equal size that may read the same channels."""

import numpy as np
import pytest

from mmdet_groupconv.grouping import cluster_options, regular_clusters


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


def test_options_are_multiples_of_align_and_keep_more_and_more():
    options = cluster_options(np.random.default_rng(2).random((16, 16)), align=4, groups=4)
    assert [int(found.reads[0].sum()) for found in options] == [4, 8, 12]
    kept = [found.kept for found in options]
    assert kept == sorted(kept)
    assert 0.25 < kept[0] < kept[-1] < 1


def test_wide_layers_have_few_options():
    assert len(cluster_options(np.ones((8, 512)), align=4, groups=2)) == 7


@pytest.mark.parametrize('shape', [(9, 16), (16, 9)])
def test_layers_that_do_not_part_have_none(shape):
    assert cluster_options(np.ones(shape), align=4) == []
