"""Interleaved timing: what disturbs the machine disturbs all cases alike."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from rich.progress import track

from .memory import peak_memory


class Timing(NamedTuple):
    """seconds: of each round. peak: see :func:`peak_memory`, None where unknown."""

    seconds: list[float]
    peak: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        first, _, third = statistics.quantiles(self.seconds, n=4, method='inclusive')
        return first, third


def interleaved(
    cases: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, Timing]:
    """Time every case once a round, after two calls each that warm up and measure memory.

    Each round begins with another case, so that none always runs behind the same one.
    """
    peaks = {name: peak_memory(run, device) for name, run in cases.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for turn in track(range(rounds), 'timing'):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            _finish(device)
            start = time.perf_counter()
            cases[name]()
            _finish(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(seconds[name], peaks[name]) for name in cases}


def _finish(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
