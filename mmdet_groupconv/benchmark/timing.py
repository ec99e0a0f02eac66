"""Interleaved timing: what disturbs the machine disturbs all cases alike."""

import gc
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import track

_STATM, _PAGE = Path('/proc/self/statm'), 4096
_SAMPLING = 0.002  # seconds


class Timing(NamedTuple):
    """seconds: of each round. peak: bytes beyond those before the call, None where unknown."""

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
    """Time every case once a round, in turn, after a warm-up of two calls each.

    Peak memory is taken in a call that is not timed: what the allocator gave out on CUDA, resident
    pages on Linux.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    peaks = {}
    for name, run in cases.items():
        run()
        peaks[name] = _peak(run, device)
    for _ in track(range(rounds), 'timing'):
        for name, run in cases.items():
            _finish(device)
            start = time.perf_counter()
            run()
            _finish(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(seconds[name], peaks[name]) for name in cases}


def _finish(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _peak(run: Callable[[], object], device: torch.device) -> int | None:
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        _finish(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not _STATM.is_file():
        run()
        return None
    highest, stop = [_resident()], threading.Event()
    before = highest[0]

    def watch() -> None:
        while not stop.wait(_SAMPLING):
            highest[0] = max(highest[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        stop.set()
        watcher.join()
    return highest[0] - before


def _resident() -> int:
    return int(_STATM.read_text().split()[1]) * _PAGE
