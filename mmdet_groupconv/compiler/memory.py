"""Memory for large feature maps that is used again."""

import math
import sys
import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# C libraries hand memory back to the system, where much of it is free at the end of the heap, and
# beyond _HUGE as soon as it is freed. Its pages have to be mapped and cleared again for every map,
# which takes longer than most convolutions.
_LARGE, _HUGE = 1 << 20, 32 << 20
_MOST = 8


class MapMemory:
    """Gives out large CPU maps from memory that nobody refers to any more.

    A buffer is a NumPy array that PyTorch keeps alive for as long as a tensor, or any view of it,
    is. So what is still in use is never given out again, and the number of buffers is the largest
    number of large maps that were alive at one time, up to a limit.
    """

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict) -> 'MapMemory':
        return MapMemory()

    def __reduce__(self) -> tuple:
        return MapMemory, ()

    def is_worth_filling(self, like: Tensor, shape: Sequence[int]) -> bool:
        """Whether to write zeros to a map from here takes less time than to map fresh memory."""
        return _is_known(like) and math.prod(shape) * like.element_size() > _HUGE

    def empty(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        """An uninitialised map ``[B, C, H, W]``, channels-last, of the kind of `like`."""
        batch, channels, height, width = shape
        size = math.prod(shape)
        if _is_known(like) and size * like.element_size() > _LARGE:
            with self._lock:
                bytes_of = self._free(size * like.element_size())
                data = torch.from_numpy(bytes_of[: size * like.element_size()]).view(like.dtype)
        else:
            data = like.new_empty(size)
        return data.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _free(self, size: int) -> np.ndarray:
        # 2: the list and the argument.
        unused = [i for i in range(len(self._buffers)) if sys.getrefcount(self._buffers[i]) == 2]
        unused.sort(key=lambda i: self._buffers[i].size)
        for i in unused:
            if self._buffers[i].size >= size:
                return self._buffers[i]
        if unused:
            self._buffers[unused[-1]] = np.empty(size, np.uint8)
            return self._buffers[unused[-1]]
        buffer = np.empty(size, np.uint8)
        if len(self._buffers) < _MOST:
            self._buffers.append(buffer)
        return buffer


def _is_known(x: Tensor) -> bool:
    return x.device.type == 'cpu' and x.dtype in (torch.float32, torch.bfloat16)
