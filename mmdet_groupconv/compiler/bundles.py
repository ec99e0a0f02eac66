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
    packed,
)
from .maps import FeatureMap, gather, join
from .memory import MapMemory

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


def _read(x: Tensor, channels: Tensor | None, memory: MapMemory) -> Tensor:
    return x if channels is None else gather(x, channels, memory)
