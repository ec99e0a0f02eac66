"""Which channels and filters of trained layers form equal groups, orders chosen together.

The channels of each space get *slots*, equally many each; a layer of g groups joins neighbouring
slots, so that the groups of 2 are halves of the order, those of 4 their halves. All layers at a
space share its order, but where it is *shuffled*: then it is written in one order and read in
another. The kept importance rises with each step: one order after another is assigned anew by
`scipy.optimize.linear_sum_assignment` (the Hungarian method), the others held.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from .spaces import Ends, Spaces

_SWEEPS = 30
_FORBIDDEN = -1e9


class Order(NamedTuple):
    """One order of a space's channels: where it is written, where it is read, or both."""

    space: object
    role: str


class Orders:
    """The slots of all channels, for the layers that keep to them.

    importance: ``[K, C]`` by layer. spaces: of these layers. slots: how many, by space.
    shuffled: spaces that are read in another order than they are written.
    """

    def __init__(
        self,
        importance: dict[str, np.ndarray],
        spaces: Spaces,
        slots: dict[int, int],
        shuffled: Iterable[int] = (),
        seed: int = 0,
    ) -> None:
        self.importance = importance
        shuffled = set(shuffled)
        self.ends = {
            name: _orders(name, spaces.layers[name], shuffled) for name in importance
        }  # (order read, order written)
        self.slots_of: dict[Order, int] = {}
        self.slot: dict[Order, np.ndarray] = {}
        rng = np.random.default_rng(seed)
        for name, weights in importance.items():
            for order, channels in zip(self.ends[name], weights.shape[::-1], strict=True):
                if order not in self.slot:
                    self.slots_of[order] = slots.get(order.space, max(slots.values(), default=1))
                    self.slot[order] = np.zeros(channels, int)
        self._start(rng)

    def groups(self, name: str, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The group of each channel ``[C]`` and of each filter ``[K]`` of a layer."""
        return tuple(self._groups(order, number) for order in self.ends[name])

    def kept(self, name: str, number: int) -> float:
        """Importance that a layer keeps in so many groups."""
        channels, filters = self.groups(name, number)
        return float(self.importance[name][filters[:, None] == channels].sum())

    def total(self, numbers: dict[str, int]) -> float:
        """Importance that all layers keep, each in its number of groups."""
        return sum(self.kept(name, number) for name, number in numbers.items())

    def improve(self, numbers: dict[str, int]) -> float:
        """Assign one order after another until nothing more is kept; returns what is kept."""
        self._sweep(self.slot, numbers)
        return self.total(numbers)

    def _start(self, rng: np.random.Generator) -> None:
        """Halves first, then halves of these: an order that serves every number of groups."""
        number = 2
        while number <= max(self.slots_of.values(), default=1):
            parents = dict(self.slot)
            split = [order for order, slots in self.slots_of.items() if slots >= number]
            for order in split:
                self.slot[order] = _halved(parents[order], self.slots_of[order] // number, rng)
            able = [name for name, ends in self.ends.items() if set(ends) <= set(split)]
            self._sweep(split, dict.fromkeys(able, number), parents)
            number *= 2

    def _sweep(
        self,
        orders: Iterable[Order],
        numbers: dict[str, int],
        parents: dict[Order, np.ndarray] | None = None,
    ) -> None:
        """Reassign each of `orders` until what is kept rises no more.

        parents: channels stay next to the slots that they had there, of half as many.
        """
        orders = list(orders)
        total = self.total(numbers)
        for _ in range(_SWEEPS):
            before = total
            for order in orders:
                total += self._reassign(order, numbers, parents)
            if total - before <= 1e-4 * abs(before):
                break

    def _reassign(
        self, order: Order, numbers: dict[str, int], parents: dict[Order, np.ndarray] | None
    ) -> float:
        """Assign one order's channels anew; returns what more is kept by that."""
        touched = {n: g for n, g in numbers.items() if g > 1 and order in self.ends[n]}
        if not touched:
            return 0.0
        slots = self.slots_of[order]
        gains = self._gains(order, touched, slots)
        columns = np.arange(slots)
        if parents is not None:  # all of one level: the same number of groups for all
            columns = columns[:: slots // next(iter(touched.values()))]
            pair = 2 * (columns[1] - columns[0])
            near = parents[order][:, None] // pair == columns // pair
            gains = np.where(near, gains[:, columns], _FORBIDDEN)
        each = len(gains) // len(columns)
        _, places = linear_sum_assignment(np.repeat(gains, each, axis=1), maximize=True)
        chosen = places // each
        rows = np.arange(len(gains))
        old = np.searchsorted(columns, self.slot[order], side='right') - 1
        more = gains[rows, chosen].sum() - gains[rows, old].sum()
        if more <= 0:  # nothing but rounding
            return 0.0
        self.slot[order] = columns[chosen]
        return float(more)

    def _gains(self, order: Order, numbers: dict[str, int], slots: int) -> np.ndarray:
        """``[channels, slots]``: what is kept of a channel in each slot, the other ends held."""
        gains = np.zeros((len(self.slot[order]), slots))
        for name, number in numbers.items():
            read, written = self.ends[name]
            for own, other, weights in (
                (read, written, self.importance[name].T),
                (written, read, self.importance[name]),
            ):
                if own == order:
                    members = np.eye(number)[self._groups(other, number)]  # [others, groups]
                    gains += (weights @ members).repeat(slots // number, axis=1)
        return gains

    def _groups(self, order: Order, number: int) -> np.ndarray:
        return self.slot[order] * number // self.slots_of[order]


def _orders(name: str, ends: Ends, shuffled: set[int]) -> tuple[Order, Order]:
    read = f'{name}.input' if ends.reads is None else ends.reads  # nobody else's
    roles = ('read', 'written') if ends.reads in shuffled else ('both', 'both')
    own_role = 'written' if ends.writes in shuffled else 'both'
    return Order(read, roles[0]), Order(ends.writes, own_role)


def _halved(slots: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
    """Half of the channels of each slot, at random, go `step` slots up."""
    split = slots.copy()
    for slot in np.unique(slots):
        members = rng.permutation((slots == slot).nonzero()[0])
        split[members[: len(members) // 2]] += step
    return split
