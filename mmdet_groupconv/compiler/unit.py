"""What one convolution is in a compact network."""

import copy

import torch
from torch import Tensor, nn

from ..layers import Gate, SelfGatedConv2d
from .fused import NONE, Activation, Geometry, convolve, output_shape
from .maps import FeatureMap, pixels, take_filters
from .memory import MapMemory


class Unit(nn.Module):
    """A step of a compact network, that skips idle channels.

    memory: of the whole network. per_image: class attribute, whether the images of a batch have to
    be run one by one. name: of the layer in its block.
    """

    per_image = False
    name = ''

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.memory = MapMemory()

    def reads(self, gate: Gate | None, needed: Tensor | None) -> Tensor | None:
        """Which input channels are read, ``[C]`` bool, for the outputs that are `needed`, ``[K]``.

        None stands for all, in both.
        """
        return None

    def forward(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """The outputs that are needed, or more of them.

        out: where given, ``[B, K, H', W']``, all outputs are added onto it, in place, before the
        activation.
        """
        raise NotImplementedError

    def empty(self, x: Tensor) -> Tensor:
        """The outputs for a batch of no images."""
        return x.new_empty(0, self.out_channels, *x.shape[2:])


class ConvUnit(Unit):
    """A convolution with the norm folded in and the activation fused.

    weight: ``[K, C, kh, kw]``. bias: ``[K]``.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, geometry: Geometry, activation: Activation
    ) -> None:
        super().__init__(weight.size(1) * geometry.groups, weight.size(0))
        self.register_buffer('weight', weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer('bias', bias)
        self.geometry, self.activation = geometry, activation

    def empty(self, x: Tensor) -> Tensor:
        """See :class:`Unit`."""
        size = output_shape(x, self.weight, self.geometry)[2:]
        return x.new_empty(0, self.out_channels, *size)

    def finish(self, y: FeatureMap, out: Tensor | None) -> FeatureMap:
        """Add outputs that were not activated yet onto `out`, where that is given."""
        if out is None:
            return y
        out.add_(y.in_order(self.out_channels, self.memory))
        return FeatureMap(self.activation.plain(out))

    def before_finish(self, out: Tensor | None) -> Activation:
        """The activation that goes into the convolution itself."""
        return self.activation if out is None else NONE


class Normalise(Unit):
    """A norm and a ReLU that come before a convolution: ``relu(x * scale + shift)``.

    scale, shift: ``[C]``.
    """

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__(len(scale), len(scale))
        self.register_buffer('scale', scale)
        self.register_buffer('shift', shift)

    def expect(self, channels: Tensor) -> None:
        """Take the input in another order from now on: ``[C]``, its channels one by one."""
        self.scale, self.shift = self.scale[channels], self.shift[channels]

    def reads(self, gate: Gate | None, needed: Tensor | None) -> Tensor | None:
        """See :class:`Unit`."""
        return needed

    def forward(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`Unit`."""
        scale, shift = self.scale, self.shift
        if x.channels is not None:
            scale, shift = scale[x.channels], shift[x.channels]
        y = self.memory.empty(x.data, x.data.shape)
        torch.addcmul(shift, pixels(x.data), scale, out=pixels(y))
        return FeatureMap(y.relu_(), x.channels)


class Prepare(Unit):
    """What a layer does before its convolution, as the layer does it itself.

    layer: its :meth:`~mmdet_groupconv.layers.SelfGatedConv2d.prepare` is called.
    """

    def __init__(self, layer: SelfGatedConv2d) -> None:
        super().__init__(layer.in_channels, layer.in_channels)
        self.layer = copy.deepcopy(layer)  # others may share it

    def forward(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`Unit`."""
        data = x.in_order(self.in_channels, self.memory)
        y = self.layer.prepare(data.to(self.layer.weight.dtype)).to(data.dtype)
        return FeatureMap(y.contiguous(memory_format=torch.channels_last))


class DepthwiseConv(ConvUnit):
    """A filter a channel: it computes the channels that are there."""

    def reads(self, gate: Gate | None, needed: Tensor | None) -> Tensor | None:
        """See :class:`Unit`."""
        return needed

    def forward(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`Unit`."""
        weight, bias = self.weight, self.bias
        if x.channels is not None:
            weight, bias = take_filters(weight, x.channels), bias.index_select(0, x.channels)
        geometry = self.geometry._replace(groups=len(weight))
        y = convolve(x.data, weight, bias, geometry, self.before_finish(out), self.memory)
        return self.finish(FeatureMap(y, x.channels), out)
