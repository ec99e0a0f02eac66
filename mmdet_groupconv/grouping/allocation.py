"""How much each layer keeps, so that a whole network meets its MACs at the least loss."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_STEPS = 4000  # of the budget
TINY = 1e-300


class Choice(NamedTuple):
    """A way to have a layer. macs: done by it. loss: estimated, 0 for the dense layer."""

    macs: float
    loss: float


def allocate(options: dict[str, Sequence[Choice]], macs: float) -> dict[str, int]:
    """The option of each layer by which all together do at most `macs` at the least loss.

    The multiple-choice knapsack problem, solved by dynamic programming over the budget in steps
    of a 4000th (Kellerer, Pferschy and Pisinger, 2004, section 11.5). Of equal losses the one that
    does more is taken.

    options: for each layer one or more. Returns the index of the option chosen for each.
    Raises ValueError, with the least that can be reached, where `macs` can't be met.
    """
    least = sum(min(o.macs for o in layer) for layer in options.values())
    if least > macs * (1 + 1e-9):
        raise ValueError(f'{macs:.4g} MACs can not be met: the least is {least:.4g}')
    unit = macs / _STEPS
    most_first = {
        name: sorted(range(len(layer)), key=lambda number, layer=layer: -layer[number].macs)
        for name, layer in options.items()
    }
    costs = np.zeros(_STEPS + 1)  # the least loss with at most so many units
    taken = []
    for name, layer in options.items():
        tried = np.full((len(layer), _STEPS + 1), np.inf)
        for row, number in enumerate(most_first[name]):
            units = round(layer[number].macs / unit)
            if units <= _STEPS:
                tried[row, units:] = costs[: _STEPS + 1 - units] + layer[number].loss
        taken.append(tried.argmin(axis=0))
        costs = tried.min(axis=0)
    chosen, left = {}, _STEPS
    for (name, layer), best in zip(reversed(options.items()), reversed(taken), strict=True):
        chosen[name] = most_first[name][int(best[left])]
        left -= round(layer[chosen[name]].macs / unit)
    return dict(reversed(chosen.items()))
