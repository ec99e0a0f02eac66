"""How every layer of a trained network is grouped, for a budget of MACs."""

from collections.abc import Callable, Collection

import numpy as np
from rich.progress import track

from .assignment import Orders
from .choosing import MeasuredChoice
from .clusters import Clusters, cluster_options
from .regular import Groups, group_counts, groups_of, most_groups, shuffled_spaces, why_dense
from .spaces import Spaces

_ROUNDS = 3


class GroupPlanner:
    """Chooses how each layer is grouped, at the least loss, and the most importance kept for that.

    First come orders that serve every number of groups, once; then for each budget numbers that
    meet it, then orders for these numbers, and so on.

    importance: ``[K, C]`` of each layer that may be grouped. macs: of each of them, dense. loss: of
    a layer, by name, in such groups. clustered: layers whose clusters may read the same channels;
    the others get disjoint groups. align: groups have multiples of so many channels and filters.
    most: disjoint groups, a power of two.
    """

    def __init__(
        self,
        importance: dict[str, np.ndarray],
        spaces: Spaces,
        macs: dict[str, float],
        loss: Callable[[str, Groups | Clusters], float],
        clustered: Collection[str] = (),
        align: int = 16,
        most: int = 16,
        seed: int = 0,
    ) -> None:
        self._names = list(importance)
        self._choose = MeasuredChoice(macs, loss)
        self._clusters = {
            name: cluster_options(importance[name], align, seed=seed)
            for name in track(importance, 'forming clusters')
            if name in clustered
        }
        self._orders = _orders(importance, spaces, self._clusters, align, most, seed)

    def plan(self, budget: float) -> dict[str, Groups | Clusters | None]:
        """The groups of each layer, None of what stays dense.

        budget: MACs of all layers together. Raises ValueError where it can't be met.
        """
        orders, numbers = self._orders, {}
        for _ in range(_ROUNDS):
            tried = {name: self._options(name) for name in self._names}
            plan, before = self._choose(tried, budget), numbers
            numbers = {name: plan[name].number if plan[name] else 1 for name in orders.importance}
            orders.improve(numbers)
            if numbers == before:
                break
        better = {name: groups_of(orders, name, n) for name, n in numbers.items() if n > 1}
        return plan | better

    def _options(self, name: str) -> list[Groups] | list[Clusters]:
        if name in self._clusters:
            return self._clusters[name]
        if name not in self._orders.importance:
            return []
        return [groups_of(self._orders, name, n) for n in group_counts(self._orders, name)[1:]]


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
