"""Clusters of filters that may read the same channels: SGC's, made regular.

All clusters of a layer have equally many filters and read equally many channels, in multiples of
what hardware likes, so that a layer is one gather and one native group convolution.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from .allocation import TINY, Choice, allocate, loss

_ROUNDS = 20


class Clusters(NamedTuple):
    """labels ``[K]``: the cluster of each filter. reads ``[G, C]`` bool: what a cluster reads."""

    labels: np.ndarray
    reads: np.ndarray

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
    best = -1.0
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
    return Clusters(labels, reads)


def plan_clusters(
    importance: dict[str, np.ndarray],
    macs: dict[str, float],
    budget: float,
    align: int = 16,
    groups: int = 4,
    seed: int = 0,
) -> dict[str, Clusters | None]:
    """Choose how many channels the clusters of each layer read, at the least loss of importance.

    importance: ``[K, C]`` of each layer that may be grouped.
    macs: of each of them, dense. budget: for all of them together. groups: of each layer, halved
    until a cluster has a multiple of `align` filters. None for a layer that stays dense.

    Raises ValueError where the budget can't be met.
    """
    tried: dict[str, list[Clusters | None]] = {}
    options: dict[str, list[Choice]] = {}
    for name, weights in importance.items():
        filters, channels = weights.shape
        tried[name], options[name] = [None], [Choice(macs[name], 0.0)]
        own = groups
        while own > 1 and filters % (own * align):
            own //= 2
        if own == 1 or channels % align:
            continue
        for read in range(align, channels, align):
            found = regular_clusters(weights, own, read, seed)
            tried[name].append(found)
            kept = float(weights[found.mask].sum()) / max(float(weights.sum()), TINY)
            options[name].append(Choice(macs[name] * read / channels, loss(kept)))
    chosen = allocate(options, budget)
    return {name: tried[name][option] for name, option in chosen.items()}
