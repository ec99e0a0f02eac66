"""Disjoint groups of equal size: how many a layer can have, and where orders change."""

from typing import NamedTuple

import numpy as np

from .allocation import TINY
from .assignment import Orders
from .spaces import Ends, Spaces


class Groups(NamedTuple):
    """How a layer is grouped.

    number: of groups; 1 is dense. channels ``[C]``, filters ``[K]``: the group of each. kept: the
    share of the layer's importance within groups.
    """

    number: int
    channels: np.ndarray
    filters: np.ndarray
    kept: float

    @property
    def share(self) -> float:
        """Of the dense layer's work."""
        return 1 / self.number

    @property
    def mask(self) -> np.ndarray:
        """``[K, C]`` bool: the connections within groups."""
        return self.filters[:, None] == self.channels


def most_groups(channels: int, align: int, most: int) -> int:
    """The highest power of two, up to `most`, of groups of a multiple of `align` channels."""
    groups = 1
    while channels % (2 * groups * align) == 0 and 2 * groups <= most:
        groups *= 2
    return groups


def why_dense(ends: Ends, spaces: Spaces, align: int) -> str | None:
    """Why a layer can't have two groups, or None."""
    if ends.reads is not None and ends.reads == ends.writes:
        return 'it reads and writes the same channels'
    for space, role in zip(ends, ('input channels', 'filters'), strict=True):
        channels = spaces.sizes.get(space)
        if channels is not None and channels % (2 * align):
            return f'{channels} {role} are no two groups of a multiple of {align}'
    return None


def shuffled_spaces(spaces: Spaces) -> set[int]:
    """Spaces that may be read in another order than they are written: one of two neighbours.

    Not residual streams, or what several layers write otherwise: there a shuffle would be one more
    pass over a map for each. So a residual block shuffles once, a tower every other convolution.
    """
    shuffled: set[int] = set()
    beside: set[str] = set()
    for ends in spaces.layers.values():
        space = ends.writes
        near = {name for name, other in spaces.layers.items() if space in other}
        is_read = any(spaces.layers[name].reads == space for name in near)
        if is_read and space not in spaces.added | shuffled and not near & beside:
            shuffled.add(space)
            beside |= near
    return shuffled


def free_spaces(spaces: Spaces) -> Spaces:
    """The same layers, each with an order of its own at both ends: to see what sharing costs."""
    layers, sizes = {}, {}
    for name, ends in spaces.layers.items():
        own = Ends(f'{name}.in', f'{name}.out')
        sizes.update({end: spaces.sizes.get(s) for end, s in zip(own, ends, strict=True)})
        layers[name] = own
    return Spaces(layers, {k: v for k, v in sizes.items() if v is not None}, set())


def group_counts(orders: Orders, name: str) -> list[int]:
    """The numbers of groups that a layer may have: 1, 2, 4, ..."""
    most = min(orders.slots_of[order] for order in orders.ends[name])
    return [2**power for power in range(most.bit_length())]


def groups_of(orders: Orders, name: str, number: int) -> Groups:
    """A layer in so many groups."""
    channels, filters = orders.groups(name, number)
    total = max(float(orders.importance[name].sum()), TINY)
    return Groups(number, channels, filters, orders.kept(name, number) / total)
