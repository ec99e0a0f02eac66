"""Into which small convolutions a weight with zeros in it can be parted."""

from typing import NamedTuple

import numpy as np

from ..compiler.parting import bundlings, by_first_filter, round_up

_MANY_PATTERNS = 32
_DENSE = 0.95  # of the connections
_NATIVE_PADS_TO = 1.3


class Bundle(NamedTuple):
    """Filters that are computed together, and the channels that they are given."""

    filters: np.ndarray
    reads: np.ndarray

    @property
    def work(self) -> int:
        """Connections, as blocks have them."""
        return round_up(len(self.filters)) * round_up(len(self.reads))


class Way(NamedTuple):
    """How to compute a convolution.

    native: as one with equal groups, filled up with zeros; else as one for each bundle.
    """

    bundles: list[Bundle]
    native: bool = False


def ways_of(weight: np.ndarray, needed: np.ndarray) -> list[Way]:
    """The ways worth trying, the first of which is one convolution that reads all channels.

    weight: ``[K, C, kh, kw]``. needed: ``[K]`` bool, the filters whose outputs somebody reads.
    """
    connected = weight.any(axis=(2, 3))
    filters = needed.nonzero()[0]
    ways = [Way([Bundle(filters, np.arange(weight.shape[1]))])]
    if connected[filters].mean() > _DENSE:
        return ways
    whole = _way(np.zeros(len(filters), int), filters, connected)
    if whole.bundles[0].work < ways[0].bundles[0].work:
        ways.append(whole)
    labels = bundlings(connected[filters], weight[0, 0].size)[1:]
    patterns, pattern_of = np.unique(connected[filters], axis=0, return_inverse=True)
    if 1 < len(patterns) <= _MANY_PATTERNS:
        labels.append(by_first_filter(pattern_of.reshape(-1)))
    for way in (_way(label, filters, connected) for label in labels):
        if any(_alike(way, other) for other in ways):
            continue
        ways.append(way)
        widest = [max(len(part) for part in parts) for parts in zip(*way.bundles, strict=True)]
        equal = len(way.bundles) * round_up(widest[0]) * round_up(widest[1])
        if equal <= _NATIVE_PADS_TO * sum(bundle.work for bundle in way.bundles):
            ways.append(Way(way.bundles, native=True))
    return ways


def _way(labels: np.ndarray, filters: np.ndarray, connected: np.ndarray) -> Way:
    bundles = []
    for label in np.unique(labels):
        own = filters[labels == label]
        reads = connected[own].any(axis=0).nonzero()[0]
        bundles.append(Bundle(own, reads if len(reads) else np.zeros(1, int)))
    return Way(bundles)


def _alike(way: Way, other: Way) -> bool:
    parts = {tuple(bundle.filters) for bundle in way.bundles}
    return parts == {tuple(bundle.filters) for bundle in other.bundles}
