"""The best groups of each layer for a budget, with no more of them measured than that takes."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from rich.progress import track

from .allocation import TINY, Choice, allocate
from .clusters import Clusters
from .regular import Groups

Option = Groups | Clusters
Loss = Callable[[str, Option], float]
_LEAST = 1e-3  # of the most a layer loses: what is measured falls to 0, which has no logarithm


class MeasuredChoice:
    """Measures each layer's mildest and hardest groups, then whatever is chosen by that, until all
    that is chosen has been measured.

    Between measured options losses are taken to grow geometrically: a layer that loses 0.1 in two
    groups and 0.4 in eight is expected to lose 0.2 in four.

    macs: of each layer, dense. loss: of a layer, by name, in such groups; asked for once for a
    layer and share of its work, whichever the order of its channels.
    """

    def __init__(self, macs: dict[str, float], loss: Loss) -> None:
        self._macs = macs
        self._loss = loss
        self._known: dict[tuple[str, float], float] = {}

    def __call__(
        self, options: dict[str, Sequence[Option]], budget: float
    ) -> dict[str, Option | None]:
        """What each layer gets for the least loss of all together; None of what stays dense.

        options: of each layer, by how much work they leave. budget: MACs of all layers together.
        Raises ValueError where it can't be met.
        """
        self._best(options, budget)  # one that can't be met is refused before minutes of measuring
        self._measure((name, own[end]) for name, own in options.items() if own for end in (0, -1))
        chosen = self._best(options, budget)
        while self._measure(chosen.items()):
            chosen = self._best(options, budget)
        return chosen

    def _best(
        self, options: dict[str, Sequence[Option]], budget: float
    ) -> dict[str, Option | None]:
        choices = {
            name: [Choice(self._macs[name], 0.0), *self._choices(name, own)]
            for name, own in options.items()
        }
        return {
            name: options[name][index - 1] if index else None
            for name, index in allocate(choices, budget).items()
        }

    def _measure(self, wanted: Iterable[tuple[str, Option | None]]) -> bool:
        """What isn't known of these; returns whether there was any."""
        new = {_key(*option): option for option in wanted if option[1] is not None}
        new = {key: option for key, option in new.items() if key not in self._known}
        for key, option in track(new.items(), 'measuring layers', disable=not new):
            self._known[key] = self._loss(*option)
        return bool(new)

    def _choices(self, name: str, options: Sequence[Option]) -> list[Choice]:
        """Of one layer, measured or estimated."""
        lost = [self._known.get(_key(name, option)) for option in options]
        known = [at for at, loss in enumerate(lost) if loss is not None]
        least = max(_LEAST * max((lost[at] for at in known), default=0.0), TINY)
        logs = np.log([max(lost[at], least) for at in known])
        places = range(len(options))
        expected = np.exp(np.interp(places, known, logs)) if known else np.zeros(len(options))
        return [
            Choice(option.share * self._macs[name], guess if loss is None else loss)
            for option, loss, guess in zip(options, lost, expected, strict=True)
        ]


def _key(name: str, option: Option) -> tuple[str, float]:
    return name, option.share
