"""Choosing among exact forms of the same computation by trying them, once for a size of map."""

import functools
import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping

import torch
from torch import Tensor

_ROUNDS = 3
_LOADS = 4
_HOPELESS = 4  # a first call may well take three times as long as others


class Fastest:
    """Remembers which form was the fastest where.

    Sizes of maps are told apart by powers of two, and the shares of the work that images' gates
    leave by quarters, so that a data set of many image sizes is timed a few times only and what is
    remembered stays small.

    chosen: the fastest, seconds: of each form that was not hopeless; both by that key.
    """

    def __init__(self) -> None:
        self.chosen: dict[tuple, Hashable] = {}
        self.seconds: dict[tuple, dict[Hashable, float]] = {}

    def choose(
        self,
        x: Tensor,
        names: Iterable[Hashable],
        run: Callable[[Hashable, Tensor | None], object],
        out: Tensor | None,
        load: Callable[[], float] = lambda: 1.0,
    ) -> Hashable:
        """The name of the form that is the fastest for maps like `x`, ``[B, C, H, W]``.

        run: runs a form by name; it may add onto its second argument, a copy of `out`. load: the
        share of the work that the image's gates leave.
        """
        names = list(names)
        if len(names) == 1:
            return names[0]
        size = (x.numel() // x.size(1)).bit_length()
        key = x.device.type, x.dtype, size, math.ceil(load() * _LOADS)
        if key not in self.chosen:
            scratch = None if out is None else out.clone()
            calls = {name: functools.partial(run, name, scratch) for name in names}
            wait = functools.partial(torch.cuda.synchronize, x.device) if x.is_cuda else None
            best = race(calls, _ROUNDS, hopeless=_HOPELESS, wait=wait)
            self.chosen[key], self.seconds[key] = min(best, key=best.get), best
        return self.chosen[key]


def race(
    calls: Mapping[Hashable, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] | None = None,
    hopeless: float = math.inf,
    wait: Callable[[], None] | None = None,
) -> dict[Hashable, float]:
    """The seconds of each call, the best of some rounds in turn.

    clock: that of the wall if not given. hopeless: those that take so many times as long as the
    fastest are not tried again, and not returned. wait: until what was begun is done.
    """
    clock, wait = clock or time.perf_counter, wait or (lambda: None)
    best = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name in best:
            wait()
            start = clock()
            calls[name]()
            wait()
            best[name] = min(best[name], clock() - start)
        limit = hopeless * min(best.values())
        best = {name: seconds for name, seconds in best.items() if not seconds > limit}
    return best
