"""The first layers of a ResNet, whose maps are the largest of the network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fused import convolve, has_fused_calls
from .unit import Unit

_BAND = 1 << 18  # values that a band has: 1 MB, what caches hold


class CompactStem(nn.Module):
    """A convolution with norm and activation, then the 3x3 max-pooling of stride 2.

    On CPUs band by band of rows, so that the convolution's outputs, four times as many as the
    pooling's, are still in the cache when they are pooled; PyTorch's pooling would also write where
    the maxima were.
    """

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.unit = unit
        self.dtype: torch.dtype | None = None  # that maps are computed in; None for the input's

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, C, H, W]``. Returns ``[B, K, H', W']``."""
        unit, x = self.unit, x.to(self.dtype or x.dtype)
        if not has_fused_calls(x):
            y = convolve(x, unit.weight, unit.bias, unit.geometry, unit.activation, unit.memory)
            return F.max_pool2d(y, 3, stride=2, padding=1)
        vertical, horizontal = unit.geometry.padding
        x = F.pad(x, (horizontal, horizontal, vertical, vertical))
        x = x.contiguous(memory_format=torch.channels_last)
        geometry = unit.geometry._replace(padding=(0, 0))
        stride, kernel = geometry.stride[0], unit.weight.size(2)
        height = (x.size(2) - kernel) // stride + 1
        width = (x.size(3) - unit.weight.size(3)) // geometry.stride[1] + 1
        shape = len(x), unit.out_channels, (height - 1) // 2 + 1, (width - 1) // 2 + 1
        out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
        step = max(_BAND // (2 * width * unit.out_channels), 1)
        for start in range(0, out.size(2), step):
            stop = min(start + step, out.size(2))
            first, last = max(2 * start - 1, 0), min(2 * stop, height)
            rows = x[:, :, first * stride : (last - 1) * stride + kernel]
            y = convolve(rows, unit.weight, unit.bias, geometry, unit.activation, unit.memory)
            y = _maxima(y, 2, 2 * start - 1 - first, stop - start)
            out[:, :, start:stop] = _maxima(y, 3, -1, out.size(3))
        return out


def _maxima(x: Tensor, dim: int, offset: int, number: int) -> Tensor:
    """Of three neighbours each along `dim`; the first three begin at `offset`, -1 or 0."""
    size = x.size(dim)
    inner = _every_other(x, dim, offset + 1, number)
    y = inner.clone()
    for shift in (offset, offset + 2):
        skip = 1 if shift < 0 else 0  # beyond the border
        begin = shift + 2 * skip
        count = min(number - skip, (size - begin + 1) // 2)
        part = y.narrow(dim, skip, count)
        torch.maximum(part, _every_other(x, dim, begin, count), out=part)
    return y


def _every_other(x: Tensor, dim: int, begin: int, count: int) -> Tensor:
    index = [slice(None)] * 4
    index[dim] = slice(begin, begin + 2 * count - 1, 2)
    return x[tuple(index)]
