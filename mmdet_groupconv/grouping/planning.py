"""How every layer of a trained network is grouped, for a budget of MACs."""

from collections.abc import Collection

import numpy as np

from .allocation import Choice, allocate, loss
from .assignment import Orders
from .clusters import Clusters, cluster_options
from .regular import Groups, group_counts, groups_of, most_groups, shuffled_spaces, why_dense
from .spaces import Spaces

_ROUNDS = 3


def plan_groups(
    importance: dict[str, np.ndarray],
    spaces: Spaces,
    macs: dict[str, float],
    budget: float,
    clustered: Collection[str] = (),
    align: int = 16,
    most: int = 16,
    seed: int = 0,
) -> dict[str, Groups | Clusters | None]:
    """Choose how each layer is grouped, at the least loss of importance.

    First come orders that serve every number of groups, then numbers that meet the budget, then
    orders for these numbers, and so on.

    importance: ``[K, C]`` of each layer that may be grouped. macs: of each of them, dense. budget:
    for all of them together. clustered: layers whose clusters may read the same channels; the
    others get disjoint groups. align: groups have multiples of so many channels and filters. most:
    disjoint groups, a power of two. Returns None for what stays dense.

    Raises ValueError where the budget can't be met.
    """
    clusters = {
        name: cluster_options(weights, align, seed=seed)
        for name, weights in importance.items()
        if name in clustered
    }
    orders = _orders(importance, spaces, clusters, align, most, seed)
    numbers: dict[str, int] = {}
    for _ in range(_ROUNDS):
        options = {name: [Choice(macs[name], 0.0)] for name in importance}
        for name, tried in clusters.items():
            for found in tried:
                share = float(found.reads[0].mean())
                options[name].append(Choice(share * macs[name], loss(found.kept)))
        for name in orders.importance:
            for number in group_counts(orders, name)[1:]:
                kept = groups_of(orders, name, number).kept
                options[name].append(Choice(macs[name] / number, loss(kept)))
        chosen, before = allocate(options, budget), numbers
        numbers = {name: 2 ** chosen[name] for name in orders.importance}
        orders.improve(numbers)
        if numbers == before:
            break
    plan: dict[str, Groups | Clusters | None] = dict.fromkeys(importance)
    for name, option in chosen.items():
        if option and name in clusters:
            plan[name] = clusters[name][option - 1]
        elif option:
            plan[name] = groups_of(orders, name, numbers[name])
    return plan


def _orders(
    importance: dict[str, np.ndarray],
    spaces: Spaces,
    clustered: Collection[str],
    align: int,
    most: int,
    seed: int,
) -> Orders:
    """Of the layers that can have two disjoint groups."""
    able = {
        name: weights
        for name, weights in importance.items()
        if name not in clustered and not why_dense(spaces.layers[name], spaces, align)
    }
    slots = {space: most_groups(n, align, most) for space, n in spaces.sizes.items()}
    slots |= {f'{n}.input': most_groups(w.shape[1], align, most) for n, w in able.items()}
    return Orders(able, spaces, slots, shuffled_spaces(spaces), seed)
