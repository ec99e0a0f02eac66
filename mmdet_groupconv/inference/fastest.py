"""Choosing among exact forms of the same computation by trying them, once for a size of map."""

import time
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor

_ROUNDS = 3
_HOPELESS = 4  # a first call may well take three times as long as others


class Fastest:
    """Remembers which form was the fastest where.

    Sizes of maps are told apart by powers of two, so that a data set of many image sizes is timed a
    few times only and what is remembered stays small.
    """

    def __init__(self) -> None:
        self.chosen: dict[tuple, Hashable] = {}

    def choose(
        self,
        x: Tensor,
        names: Iterable[Hashable],
        run: Callable[[Hashable, Tensor | None], object],
        out: Tensor | None,
    ) -> Hashable:
        """The name of the form that is the fastest for maps like `x`, ``[B, C, H, W]``.

        run: runs a form by name; it may add onto its second argument, a copy of `out`.
        """
        names = list(names)
        if len(names) == 1 or torch.onnx.is_in_onnx_export():
            return names[0]
        key = x.device.type, x.dtype, (x.numel() // x.size(1)).bit_length()
        if key not in self.chosen:
            scratch = None if out is None else out.clone()
            best = dict.fromkeys(names, float('inf'))
            for _ in range(_ROUNDS):
                for name in best:
                    seconds = _seconds(lambda name=name: run(name, scratch), x.device)
                    best[name] = min(best[name], seconds)
                limit = _HOPELESS * min(best.values())
                best = {name: seconds for name, seconds in best.items() if seconds <= limit}
            self.chosen[key] = min(best, key=best.get)
        return self.chosen[key]


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
