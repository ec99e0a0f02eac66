"""Memory for large feature maps that is used again."""

import math
import sys
import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Beyond this, C libraries hand memory back to the system as soon as it is freed. Its pages have to
# be mapped and cleared again for every map, which takes longer than most convolutions.
_LARGE = 32 << 20
_MOST = 8


class MapPool:
    """Gives out large CPU maps from memory that nobody refers to any more.

    A buffer is a NumPy array that PyTorch keeps alive for as long as a tensor, or any view of it,
    is. So what is still in use is never given out again, and the number of buffers is the largest
    number of large maps that were alive at one time, up to a limit.
    """

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict) -> 'MapPool':
        return MapPool()

    def __reduce__(self) -> tuple:
        return MapPool, ()

    def serves(self, like: Tensor, shape: Sequence[int]) -> bool:
        """Whether a map of `shape` and of the kind of `like` is large enough to come from here."""
        if like.device.type != 'cpu' or torch.onnx.is_in_onnx_export():
            return False
        return like.dtype is torch.float32 and math.prod(shape) * 4 > _LARGE

    def empty(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        """An uninitialised map ``[B, C, H, W]``, channels-last, float32."""
        batch, channels, height, width = shape
        size = math.prod(shape)
        with self._lock:
            data = torch.from_numpy(self._free(size)[:size])
        return data.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _free(self, size: int) -> np.ndarray:
        for position in range(len(self._buffers)):
            # 2: the list and the argument.
            if sys.getrefcount(self._buffers[position]) == 2:
                if self._buffers[position].size < size:
                    self._buffers[position] = np.empty(size, np.float32)
                return self._buffers[position]
        buffer = np.empty(size, np.float32)
        if len(self._buffers) < _MOST:
            self._buffers.append(buffer)
        return buffer
