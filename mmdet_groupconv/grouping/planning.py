"""How every layer of a trained network is grouped, for a budget of MACs."""

from collections.abc import Callable, Collection

import numpy as np
from rich.progress import track

from .allocation import Choice, allocate
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
    loss: Callable[[str, Groups | Clusters], float],
    clustered: Collection[str] = (),
    align: int = 16,
    most: int = 16,
    seed: int = 0,
) -> dict[str, Groups | Clusters | None]:
    """Choose how each layer is grouped, at the least loss, and the most importance kept for that.

    First come orders that serve every number of groups, then numbers that meet the budget, then
    orders for these numbers, and so on.

    importance: ``[K, C]`` of each layer that may be grouped. macs: of each of them, dense. budget:
    for all of them together. loss: of a layer, by name, in such groups. clustered: layers whose
    clusters may read the same channels; the others get disjoint groups. align: groups have
    multiples of so many channels and filters. most: disjoint groups, a power of two. Returns None
    for what stays dense.

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
        tried = {name: [None, *clusters.get(name, [])] for name in importance}
        for name in orders.importance:
            counts = group_counts(orders, name)[1:]
            tried[name] += [groups_of(orders, name, number) for number in counts]
        chosen, before = allocate(_choices(tried, macs, loss), budget), numbers
        numbers = {name: 2 ** chosen[name] for name in orders.importance}
        orders.improve(numbers)
        if numbers == before:
            break
    plan = {name: tried[name][option] for name, option in chosen.items()}
    better = {name: groups_of(orders, name, n) for name, n in numbers.items() if n > 1}
    return plan | better


def _choices(
    tried: dict[str, list[Groups | Clusters | None]],
    macs: dict[str, float],
    loss: Callable[[str, Groups | Clusters], float],
) -> dict[str, list[Choice]]:
    found = {}
    for name, options in track(tried.items(), 'measuring layers'):
        found[name] = [
            Choice(macs[name], 0.0)
            if groups is None
            else Choice(groups.share * macs[name], loss(name, groups))
            for groups in options
        ]
    return found


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
