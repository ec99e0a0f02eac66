"""What choosing groups from the weights keeps, and what sharing orders costs."""

import numpy as np

from .assignment import Orders
from .regular import Groups, free_spaces, most_groups
from .spaces import Spaces


def compare_orders(
    importance: dict[str, np.ndarray],
    spaces: Spaces,
    plan: dict[str, Groups],
    seed: int = 0,
) -> dict[str, float]:
    """The share of importance within groups, the mean over layers in two groups or more.

    shared: as planned, with one order a space. free: each layer with an order of its own at both
    ends. contiguous: groups of neighbouring channels, as ``nn.Conv2d(groups=...)`` has them.
    random: 1 / groups. Empty where no layer is grouped.

    importance: ``[K, C]`` by layer. plan: the groups of each of them.
    """
    grouped = {name: groups for name, groups in plan.items() if groups.number > 1}
    if not grouped:
        return {}
    weights = {name: importance[name] for name in grouped}
    numbers = {name: groups.number for name, groups in grouped.items()}
    alone = free_spaces(spaces)
    most = max(numbers.values())
    slots = {space: most_groups(size, 1, most) for space, size in alone.sizes.items()}
    free = Orders(weights, alone, slots, seed=seed)
    free.improve(numbers)
    shares = dict(
        shared=[groups.kept for groups in grouped.values()],
        free=[free.kept(n, number) / weights[n].sum() for n, number in numbers.items()],
        contiguous=[_contiguous(weights[n], number) for n, number in numbers.items()],
        random=[1 / number for number in numbers.values()],
    )
    return {name: float(np.mean(values)) for name, values in shares.items()}


def _contiguous(weights: np.ndarray, groups: int) -> float:
    filters, channels = (np.arange(n) * groups // n for n in weights.shape)
    return weights[filters[:, None] == channels].sum() / weights.sum()
