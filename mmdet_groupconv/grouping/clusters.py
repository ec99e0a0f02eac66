"""Clusters of filters that may read the same channels: SGC's, made regular.

All clusters of a layer have equally many filters and read equally many channels, in multiples of
what hardware likes, so that a layer is one gather and one native group convolution.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from .allocation import TINY

_ROUNDS = 20
_MOST_OPTIONS = 8


class Clusters(NamedTuple):
    """labels ``[K]``: the cluster of each filter. reads ``[G, C]`` bool: what a cluster reads.

    kept: the share of the layer's importance.
    """

    labels: np.ndarray
    reads: np.ndarray
    kept: float

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self.reads)

    @property
    def share(self) -> float:
        """Of the dense layer's work."""
        return float(self.reads[0].mean())

    @property
    def mask(self) -> np.ndarray:
        """``[K, C]`` bool."""
        return self.reads[self.labels]


def regular_clusters(importance: np.ndarray, groups: int, channels: int, seed: int = 0) -> Clusters:
    """Part filters into equal clusters and give each its own best channels, in turn, until neither
    keeps more.

    As SG-CNN's k-means (section 3), but for the importance kept, and with clusters of equal size.

    importance: ``[K, C]``. groups: divides K. channels: how many each cluster reads.
    """
    filters = len(importance)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(filters) * groups // filters)
    best, total = -1.0, max(float(importance.sum()), TINY)
    for _ in range(_ROUNDS):
        wanted = np.eye(groups)[labels].T @ importance  # [G, C]
        reads = np.zeros_like(wanted, dtype=bool)
        top = np.argpartition(-wanted, channels - 1, axis=1)[:, :channels]
        np.put_along_axis(reads, top, True, axis=1)
        gains = importance @ reads.T  # [K, G]
        kept = gains[np.arange(filters), labels].sum()
        if kept <= best * (1 + 1e-6):
            break
        best = kept
        each = filters // groups
        _, places = linear_sum_assignment(gains.repeat(each, axis=1), maximize=True)
        labels = places // each
    return Clusters(labels, reads, float(importance[reads[labels]].sum()) / total)


def cluster_options(
    importance: np.ndarray, align: int = 16, groups: int = 4, seed: int = 0
) -> list[Clusters]:
    """A layer's clusters for about 8 numbers of channels that each reads, fewest first.

    importance: ``[K, C]``. groups: halved until a cluster has a multiple of `align` filters; with
    fewer than two, or channels that are no multiple of `align`, there is none.
    """
    filters, channels = importance.shape
    while groups > 1 and filters % (groups * align):
        groups //= 2
    if groups == 1 or channels % align:
        return []
    step = align * max(1, round(channels / align / _MOST_OPTIONS))
    reads = range(step, channels, step)
    return [regular_clusters(importance, groups, number, seed) for number in reads]
