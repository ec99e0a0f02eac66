"""Convolutions of some filters with some channels each, whose outputs go side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .fused import (
    NONE,
    Activation,
    Geometry,
    convolve,
    convolve_onto,
    has_fused_calls,
    matmul,
    packed,
)
from .maps import FeatureMap, gather, join, pixels, take_columns
from .memory import MapMemory

_BAND = 1 << 20  # values that a band has: 4 MB, what caches hold
# Sizes of map that are remembered: a head's layers see one for each level of a pyramid in turn.
_SIZES = 5


class Bundle(NamedTuple):
    """Filters that are computed together, and the channels that they read.

    channels: ``[n]``, None for all. weight: ``[k, n, kh, kw]``. bias: ``[k]``.
    """

    channels: Tensor | None
    weight: Tensor
    bias: Tensor


class Bundles:
    """All filters of a layer that are computed.

    order: ``[K]``, which filter each output belongs to; None where they come in their own order.
    lasting: whether it is for many images, so that weights are worth preparing.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        order: Tensor | None,
        geometry: Geometry,
        activation: Activation,
        lasting: bool = False,
    ) -> None:
        self.bundles, self.order = bundles, order
        self.geometry, self.activation = geometry, activation
        self.lasting = lasting
        self._packed: dict[torch.Size, list[Bundle] | None] = {}  # the latest size last

    def __getstate__(self) -> dict:
        return dict(self.__dict__, _packed={})  # oneDNN's tensors can't be copied

    def run(self, x: FeatureMap, total: int, out: Tensor | None, memory: MapMemory) -> FeatureMap:
        """Convolve the whole map, bundle by bundle.

        total: channels of `x` if all were there. out: where given, ``[B, K, H', W']``, all outputs
        are added onto it, in place, before the activation.
        """
        bundles = self._for(x, total)
        if self.lasting and bundles is self.bundles and has_fused_calls(x.data):
            bundles = self._pack(x.data)
        if out is None:
            parts = [
                convolve(
                    _read(x.data, channels, memory), *rest, self.geometry, self.activation, memory
                )
                for channels, *rest in bundles
            ]
            return FeatureMap(join(parts, memory), self.order)
        if len(bundles) == 1 and self.order is None:
            channels, *rest = bundles[0]
            read = _read(x.data, channels, memory)
            convolve_onto(out, read, *rest, self.geometry, self.activation)
            return FeatureMap(out)
        parts = (
            convolve(_read(x.data, channels, memory), *rest, self.geometry, NONE, memory)
            for channels, *rest in bundles
        )
        if self.order is None:
            start = 0
            for part in parts:
                out[:, start : start + part.size(1)].add_(part)
                start += part.size(1)
        else:
            y = FeatureMap(join(list(parts), memory), self.order)
            out.add_(y.in_order(out.size(1), memory))
        return FeatureMap(self.activation.plain(out))

    def run_in_bands(
        self, x: FeatureMap, total: int, out: Tensor | None, memory: MapMemory
    ) -> FeatureMap:
        """The same as products of matrices, some pixels at a time.

        What is gathered for a band is still in the cache when it is multiplied and added.
        """
        if out is not None and not out.is_contiguous(memory_format=torch.channels_last):
            return self.run(x, total, out, memory)  # its pixels are no rows
        matrices = [(bundle[0], bundle[1].flatten(1), bundle[2]) for bundle in self._for(x, total)]
        filters = sum(len(bias) for *_, bias in matrices)
        batch, _, height, width = x.data.shape
        shape = batch, filters, height, width
        rows = pixels(x.data)
        y = memory.empty(x.data, shape) if out is None else out
        written = pixels(y)
        activation, back = (self.activation, None) if out is None else (NONE, None)
        if out is not None and self.order is not None:
            back = FeatureMap(out, self.order).positions(filters)
        step = max(_BAND // max(rows.size(1), filters), 1)
        for start in range(0, len(rows), step):
            band, target = rows[start : start + step], written[start : start + step]
            parts = [
                matmul(_columns(band, channels), weight, bias, activation)
                for channels, weight, bias in matrices
            ]
            if out is None:
                torch.cat(parts, dim=1, out=target)
                continue
            part = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            self.activation.plain(target.add_(_columns(part, back)))
        return FeatureMap(y, self.order if out is None else None)

    def _pack(self, x: Tensor) -> Sequence[Bundle]:
        """Packed for this size of map, of which another one was seen lately; else as they are."""
        # What is packed for another size is slower, and packing takes longer than it saves once.
        again = x.shape in self._packed
        bundles = self._packed.pop(x.shape, None)
        if again and bundles is None:
            bundles = []
            for channels, weight, bias in self.bundles:
                shape = len(x), weight.size(1) * self.geometry.groups, *x.shape[2:]
                like = x.new_empty(shape, device='meta')
                bundles.append(Bundle(channels, packed(weight, like, self.geometry), bias))
        self._packed[x.shape] = bundles
        if len(self._packed) > _SIZES:
            self._packed.pop(next(iter(self._packed)), None)
        return bundles or self.bundles

    def _for(self, x: FeatureMap, total: int) -> Sequence[Bundle]:
        """The bundles, their channels where the map has them."""
        places = x.positions(total)
        if places is None:
            return self.bundles
        found = []
        for channels, weight, bias in self.bundles:
            channels = places if channels is None else places[channels]
            if len(channels) == x.data.size(1):
                # All that is there: weights are smaller than maps.
                weight, channels = gather(weight, channels.argsort(), MapMemory()), None
            found.append(Bundle(channels, weight, bias))
        return found


def can_run_in_bands(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether there is what :meth:`Bundles.run_in_bands` needs: 1x1 filters and a CPU's caches."""
    plain = geometry.stride == (1, 1) and geometry.padding == (0, 0) and geometry.groups == 1
    return plain and weight.shape[2:] == (1, 1) and x.device.type == 'cpu'


def _read(x: Tensor, channels: Tensor | None, memory: MapMemory) -> Tensor:
    return x if channels is None else gather(x, channels, memory)


def _columns(rows: Tensor, channels: Tensor | None) -> Tensor:
    return rows if channels is None else take_columns(rows, channels)
