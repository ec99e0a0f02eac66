"""Peak memory of a call."""

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _RESET = Path('/proc/self/status'), Path('/proc/self/clear_refs')


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the peak of the second call, beyond what there was before the first.

    So what a case keeps between calls counts, and what it only needs to find its way on first use
    doesn't. On CUDA: what PyTorch's allocator gave out. On the CPU: the process's resident set,
    whose peak Linux itself records; memory that was freed is handed back to the system before, or
    a case could use what an earlier one left without being seen. None where that can't be done.
    """
    if device.type == 'cuda':
        return _on_cuda(run, device)
    if not _can_measure():
        run()
        run()
        return None
    before = _settled()
    run()
    _settled()
    _RESET.write_text('5')  # the peak is the present size from here on
    run()
    return max(_status('VmHWM') - before, 0)


def _on_cuda(run: Callable[[], object], device: torch.device) -> int:
    gc.collect()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    run()
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _can_measure() -> bool:
    if not _STATUS.is_file() or not hasattr(ctypes.CDLL(None), 'malloc_trim'):
        return False
    try:
        _RESET.write_text('5')
    except OSError:  # a sandbox may not have it
        return False
    return True


def _settled() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status('VmRSS')


def _status(name: str) -> int:
    return 1024 * int(re.search(rf'{name}:\s+(\d+) kB', _STATUS.read_text())[1])
