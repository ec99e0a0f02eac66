"""Disjoint groups of equal size for every layer of a trained network, for a budget of MACs."""

from typing import NamedTuple

import numpy as np

from .allocation import TINY, Choice, allocate, loss
from .assignment import Orders
from .spaces import Ends, Spaces

_ROUNDS = 3


class Groups(NamedTuple):
    """How a layer is grouped.

    number: of groups; 1 is dense. channels ``[C]``, filters ``[K]``: the group of each. kept: the
    share of the layer's importance within groups.
    """

    number: int
    channels: np.ndarray
    filters: np.ndarray
    kept: float


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


def plan_groups(
    importance: dict[str, np.ndarray],
    spaces: Spaces,
    macs: dict[str, float],
    budget: float,
    align: int = 16,
    most: int = 16,
    seed: int = 0,
) -> dict[str, Groups]:
    """Choose how many groups each layer has and who is in them, at the least loss of importance.

    Orders that serve every number of groups come first, then numbers that meet the budget, then
    orders for these numbers.

    importance: ``[K, C]`` of each layer that may be grouped.
    macs: of each of them, dense. budget: for all of them together.

    Raises ValueError where the budget can't be met.
    """
    slots = {space: most_groups(n, align, most) for space, n in spaces.sizes.items()}
    slots |= {f'{n}.input': most_groups(w.shape[1], align, most) for n, w in importance.items()}
    able = {n: w for n, w in importance.items() if not why_dense(spaces.layers[n], spaces, align)}
    orders = Orders(able, spaces, slots, shuffled_spaces(spaces), seed)
    numbers = dict.fromkeys(importance, 1)
    for _ in range(_ROUNDS):
        options = {name: [Choice(macs[name], 0.0)] for name in importance}
        for name, weights in able.items():
            total = max(float(weights.sum()), TINY)
            options[name] = [
                Choice(macs[name] / number, loss(orders.kept(name, number) / total))
                for number in _numbers(orders, name)
            ]
        before, chosen = numbers, allocate(options, budget)
        numbers = {name: 2**option for name, option in chosen.items()}
        orders.improve({name: numbers[name] for name in able})
        if numbers == before:
            break
    return {name: _groups(orders, name, numbers[name], importance[name]) for name in importance}


def _numbers(orders: Orders, name: str) -> list[int]:
    most = min(orders.slots_of[order] for order in orders.ends[name])
    return [2**power for power in range(most.bit_length())]


def _groups(orders: Orders, name: str, number: int, importance: np.ndarray) -> Groups:
    if number == 1:
        filters, channels = importance.shape
        return Groups(1, np.zeros(channels, int), np.zeros(filters, int), 1.0)
    channels, filters = orders.groups(name, number)
    kept = orders.kept(name, number) / max(float(importance.sum()), TINY)
    return Groups(number, channels, filters, kept)
