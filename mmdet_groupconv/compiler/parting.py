"""Which filters of a static layer to compute together."""

import itertools

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage

# Channels that this CPU's kernels handle at once, oneDNN's and onnxruntime's.
BLOCK = 8 if torch.backends.cpu.get_cpu_capability() == 'AVX2' else 16
# What it takes to gather a channel of a pixel, in multiply-accumulates: from a wide core to a slow
# one. Each gives another bundling, and trying them tells which is the machine's.
_GATHERS = (20, 80, 320)


def bundlings(connected: np.ndarray, area: int) -> list[np.ndarray]:
    """Ways to part filters into bundles, as ``[K]`` numbers of the bundle of each filter.

    A bundle reads every channel that one of its filters reads. Filters that read alike are put next
    to each other, then the row is cut where that costs least. The first way is one bundle for all.

    connected: ``[K, C]`` bool. area: pixels of the kernel.
    """
    filters = len(connected)
    found = [np.zeros(filters, np.int64)]
    patterns, pattern_of = np.unique(connected, axis=0, return_inverse=True)
    if len(patterns) == 1:
        return found
    places = np.argsort(leaves_list(linkage(patterns, method='average', metric='hamming')))
    order = np.argsort(places[pattern_of.reshape(-1)], kind='stable')
    cuts = _possible_cuts(connected[order])
    unions = _unions(connected[order], cuts)
    for gather in _GATHERS:
        labels = np.empty(filters, np.int64)
        labels[order] = _cut(cuts, unions, area, gather)
        labels = by_first_filter(labels)
        if not any(np.array_equal(labels, other) for other in found):
            found.append(labels)
    return found


def by_first_filter(labels: np.ndarray) -> np.ndarray:
    """The same bundles, numbered in the order of their first filters."""
    _, first, bundle_of = np.unique(labels, return_index=True, return_inverse=True)
    return first.argsort().argsort()[bundle_of]


def round_up(number: int | np.ndarray, step: int | None = None) -> int | np.ndarray:
    """To the next multiple of `step`, BLOCK if not given."""
    step = step or BLOCK
    return -(-number // step) * step


def _possible_cuts(connected: np.ndarray) -> np.ndarray:
    """Where filters read something else than their neighbour, and every tile in between."""
    changes = 1 + np.flatnonzero((connected[1:] != connected[:-1]).any(axis=1))
    starts = np.concatenate(([0], changes, [len(connected)]))
    if len(starts) > len(connected) // BLOCK + 64:  # about every filter is different
        starts = np.array([0, len(connected)])
    tiles = [np.arange(a, b, BLOCK) for a, b in itertools.pairwise(starts)]
    return np.concatenate((*tiles, [len(connected)]))


def _unions(connected: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Channels that are read from cut i to cut j, ``[cuts, cuts]``."""
    pieces = np.stack([connected[a:b].any(axis=0) for a, b in itertools.pairwise(cuts)])
    unions = np.zeros((len(cuts), len(cuts)), np.int64)
    for start in range(len(pieces)):
        seen = np.logical_or.accumulate(pieces[start:], axis=0)
        unions[start, start + 1 :] = seen.sum(axis=1)
    return unions


def _cut(cuts: np.ndarray, unions: np.ndarray, area: int, gather: int) -> np.ndarray:
    """The cheapest parts, by dynamic programming; ``[K]`` numbers of them."""
    sizes = cuts[None] - cuts[:, None]
    tiled = round_up(sizes)
    cost = unions * (tiled * area + gather) + 1
    best, previous = np.zeros(len(cuts)), np.zeros(len(cuts), np.int64)
    for j in range(1, len(cuts)):
        total = best[:j] + cost[:j, j]
        previous[j] = total.argmin()
        best[j] = total[previous[j]]
    labels, j = np.zeros(cuts[-1], np.int64), len(cuts) - 1
    number = 0
    while j > 0:
        labels[cuts[previous[j]] : cuts[j]] = number
        j, number = previous[j], number + 1
    return labels
