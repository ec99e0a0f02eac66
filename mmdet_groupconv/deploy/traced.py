"""Compact networks as PyTorch's exporter can trace them: plain operations on maps of any length."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compiler.blocks import CompactLinear, HostGates
from ..compiler.chain import Chain, needed_by
from ..compiler.fused import NONE, Activation
from ..compiler.gated import GatedConv, SelfGatedConv
from ..compiler.group_norm import CompactGroupNorm
from ..compiler.maps import FeatureMap, one_at_least
from ..compiler.static import StaticConv
from ..compiler.stem import CompactStem
from ..compiler.unit import ConvUnit, DepthwiseConv, Normalise, Prepare, Unit
from ..layers import Gate


def traceable(model: nn.Module) -> nn.Module:
    """A compact network, changed in place: every form that suits a CPU gives way to a plain one."""
    for name, child in list(model.named_children()):
        setattr(model, name, traceable(child))
    if isinstance(model, Chain):
        return _Chain(model)
    if isinstance(model, CompactStem):
        return nn.Sequential(_Chain(Chain([model.unit])), nn.MaxPool2d(3, stride=2, padding=1))
    if isinstance(model, CompactGroupNorm):
        return model.norm
    if isinstance(model, CompactLinear):
        return _Linear(model.chain)
    if isinstance(model, HostGates | SelfGatedConv):
        model.pooling = _Mean(model.pooling.order)
    return model


class _Conv2d(torch.autograd.Function):
    # The exporter wants to know the kernel's size, and loses it where the graph picks filters.

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, geometry: tuple) -> Tensor:
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def symbolic(g, x, weight, bias, geometry: tuple):
        stride, padding, dilation, groups = geometry
        settings = dict(strides_i=stride, pads_i=padding * 2, dilations_i=dilation, group_i=groups)
        return g.op('Conv', x, weight, bias, **settings)


class _Mean(nn.Module):
    """In the place of ``GlobalMean``."""

    def __init__(self, order: Tensor | None) -> None:
        super().__init__()
        self.register_buffer('order', order)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)
        return means if self.order is None else means[:, self.order]


class _Linear(nn.Module):
    """In the place of ``CompactLinear``."""

    def __init__(self, chain: nn.Module) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor) -> Tensor:
        y = self.chain(x.t()[None, :, :, None])
        return y.reshape(self.chain.units[-1].unit.out_channels, -1).t()


class _Chain(nn.Module):
    """In the place of ``Chain``, for one image where gates come with it."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.units = nn.ModuleList(_UNITS[type(unit)](unit) for unit in chain.units)

    def entry(self, x: Tensor) -> Tensor:
        return x

    def forward(
        self, x: Tensor, gates: list[Gate | None] | None = None, out: Tensor | None = None
    ) -> Tensor:
        units = [traced.unit for traced in self.units]
        gates = [None] * len(units) if gates is None else gates
        needed, y = needed_by(units, gates), FeatureMap(x)
        for i, traced in enumerate(self.units):
            y = traced(y, gates[i], needed[i])
            if out is None or i < len(units) - 1:
                y = y._replace(data=_activation(traced.unit).plain(y.data))
        y = _in_order(y, units[-1].out_channels)
        return y if out is None else _activation(units[-1]).plain(out + y)


class _Traced(nn.Module):
    """A unit up to its activation; arguments and result as the unit's own."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.unit = unit

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return _Conv2d.apply(x, weight, bias, self.unit.geometry)


class _Dense(_Traced):
    """All filters of a static convolution, on all channels: its zeros tell what to leave out."""

    def __init__(self, unit: StaticConv) -> None:
        super().__init__(unit)
        weight, bias = unit.weight, unit.bias
        if unit.filters is not None:  # nobody reads the others
            weight = weight.new_zeros(unit.out_channels, *weight.shape[1:])
            weight[unit.filters] = unit.weight
            bias = bias.new_zeros(unit.out_channels)
            bias[unit.filters] = unit.bias
        self.register_buffer('weight', weight)
        self.register_buffer('bias', bias)

    def forward(self, x: FeatureMap, gate: Gate | None, needed: Tensor | None) -> FeatureMap:
        return FeatureMap(
            self.convolve(_in_order(x, self.unit.in_channels), self.weight, self.bias)
        )


class _Depthwise(_Traced):
    # Its groups are fixed in a graph.
    def forward(self, x: FeatureMap, gate: Gate | None, needed: Tensor | None) -> FeatureMap:
        x, unit = _in_order(x, self.unit.in_channels), self.unit
        return FeatureMap(self.convolve(x, unit.weight, unit.bias))


class _Normalise(_Traced):
    def forward(self, x: FeatureMap, gate: Gate | None, needed: Tensor | None) -> FeatureMap:
        scale, shift = self.unit.scale, self.unit.shift
        if x.channels is not None:
            scale, shift = scale[x.channels], shift[x.channels]
        y = x.data * scale[:, None, None] + shift[:, None, None]
        return FeatureMap(y.relu(), x.channels)


class _Prepare(_Traced):
    def forward(self, x: FeatureMap, gate: Gate | None, needed: Tensor | None) -> FeatureMap:
        return FeatureMap(self.unit.layer.prepare(_in_order(x, self.unit.in_channels)))


class _Gated(_Traced):
    """A small convolution a head, on the channels that it reads; at least one of each is there."""

    def forward(self, x: FeatureMap, gate: Gate, needed: Tensor | None) -> FeatureMap:
        unit, opened = self.unit, one_at_least(gate.mask[0] > 0)
        value, places = gate.value[0].to(unit.weight.dtype), x.positions(unit.in_channels)
        ids, parts, start = [], [], 0
        for head, size in enumerate(unit.sizes):
            rows = torch.arange(start, start + size)
            if needed is not None:
                own = needed if unit.order is None else needed[unit.order]
                rows = start + one_at_least(own[start : start + size]).nonzero()[:, 0]
            channels = opened[head].nonzero()[:, 0]
            weight = unit.weight.index_select(0, rows).index_select(1, channels)
            weight = weight * value[head][channels][:, None, None]
            read = x.data.index_select(1, channels if places is None else places[channels])
            parts.append(self.convolve(read, weight, unit.bias.index_select(0, rows)))
            ids.append(rows)
            start += size
        rows = torch.cat(ids)
        if needed is None:
            return FeatureMap(torch.cat(parts, dim=1), unit.order)
        return FeatureMap(torch.cat(parts, dim=1), rows if unit.order is None else unit.order[rows])


class _SelfGated(_Gated):
    def forward(self, x: FeatureMap, gate: Gate | None, needed: Tensor | None) -> FeatureMap:
        data = _in_order(x, self.unit.in_channels)
        return super().forward(FeatureMap(data), self.unit.own_gate(data), needed)


_UNITS: dict[type[Unit], type[_Traced]] = {
    StaticConv: _Dense,
    DepthwiseConv: _Depthwise,
    Normalise: _Normalise,
    Prepare: _Prepare,
    GatedConv: _Gated,
    SelfGatedConv: _SelfGated,
}


def _activation(unit: Unit) -> Activation:
    return unit.activation if isinstance(unit, ConvUnit) else NONE


def _in_order(x: FeatureMap, total: int) -> Tensor:
    places = x.positions(total)
    return x.data if places is None else x.data.index_select(1, places)
