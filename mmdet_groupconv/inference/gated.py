"""Convolutions whose gates come with the image."""

import copy

import torch
from torch import Tensor

from ..layers import Gate, SelfGatedConv2d
from .fastest import Fastest
from .fused import Activation, Geometry, convolve, convolve_onto
from .maps import FeatureMap, MatrixPool, gather, join, one_at_least, take_filters
from .unit import ConvUnit


class GatedConv(ConvUnit):
    """Runs the connections that one image needs; strength goes into the weights.

    Two forms: *heads*, a small convolution a head on the channels that it reads, gathered; *whole*,
    one convolution on all that is there, for maps that are costlier to gather than to convolve.
    Both leave out filters whose outputs are not needed.

    groups: ``[K]``, the head of each filter.
    """

    per_image = True

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        geometry: Geometry,
        activation: Activation,
        groups: Tensor,
    ) -> None:
        order = groups.argsort(stable=True)
        in_order = bool((order.diff() > 0).all())
        super().__init__(weight[order], bias[order], geometry, activation)
        self.register_buffer('order', None if in_order else order)
        self.register_buffer('groups', groups[order])
        self.sizes = groups.bincount().tolist()
        self.forms = Fastest()

    def reads(self, gate: Gate | None, needed: Tensor | None) -> Tensor | None:
        """See :class:`Unit`."""
        opened = gate.mask[0] > 0
        if needed is not None:
            heads = self._in_own_order(needed).split(self.sizes)
            awake = torch.stack([filters.any() for filters in heads])
            opened = opened[: len(heads)] & awake[:, None]
        return opened.any(dim=0)

    def run(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`Unit`."""
        rows = None
        if needed is not None:
            needed = self._in_own_order(needed)
            if torch.onnx.is_in_onnx_export():  # a graph can't leave out a head
                needed = torch.cat([one_at_least(head) for head in needed.split(self.sizes)])
            rows = needed.nonzero()[:, 0]

        forms = {'heads': self._heads, 'whole': self._whole}

        def run(name: str, out: Tensor | None) -> FeatureMap:
            return forms[name](x, gate, rows, out)

        return run(self.forms.choose(x.data, forms, run, out), out)

    def _in_own_order(self, needed: Tensor) -> Tensor:
        return needed if self.order is None else needed[self.order]

    def _whole(
        self, x: FeatureMap, gate: Gate, rows: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        weight, groups, bias = self.weight, self.groups, self.bias
        value = gate.value[0].to(weight.dtype)
        if rows is not None:
            weight, groups = take_filters(weight, rows), groups[rows]
            bias = bias.index_select(0, rows)
        if x.channels is not None:
            weight, value = gather(weight, x.channels, self.pool), value.index_select(1, x.channels)
        weight = weight * (value if len(value) == 1 else value[groups])[..., None, None]
        if out is not None and self.order is None:
            convolve_onto(out, x.data, weight, bias, self.geometry, self.activation)
            return FeatureMap(out)
        y = convolve(x.data, weight, bias, self.geometry, self.before_finish(out), self.pool)
        return self.finish(FeatureMap(y, self._ids(rows)), out)

    def _heads(
        self, x: FeatureMap, gate: Gate, rows: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        value, opened = gate.value[0].to(self.weight.dtype), one_at_least(gate.mask[0] > 0)
        tracing = torch.onnx.is_in_onnx_export()  # then lengths are known to the graph alone
        places = x.positions(self.in_channels)
        alone = len(self.sizes) == 1 and self.order is None
        parts, start = [], 0
        for head, size in enumerate(self.sizes):
            weight, bias = self._filters(head, start, size, rows)
            start += size
            if not tracing and len(weight) == 0:
                continue
            channels = opened[head].nonzero()[:, 0]
            weight = gather(weight, channels, self.pool) * value[head, channels][:, None, None]
            read = x.data
            if tracing or len(channels) < read.size(1):
                read = gather(read, channels if places is None else places[channels], self.pool)
            elif places is not None:
                weight = gather(weight, places[channels].argsort(), self.pool)
            if alone and out is not None:
                convolve_onto(out, read, weight, bias, self.geometry, self.activation)
                return FeatureMap(out)
            part = convolve(read, weight, bias, self.geometry, self.before_finish(out), self.pool)
            if out is not None and self.order is None and not tracing:
                out[:, start - size : start].add_(part)
            else:
                parts.append(part)
        if not parts:
            return FeatureMap(self.activation.plain(out))
        y = join(parts, self.pool)
        return self.finish(FeatureMap(y, self._ids(rows)), out)

    def _filters(
        self, head: int, start: int, size: int, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if rows is None:
            return self.weight[start : start + size], self.bias[start : start + size]
        rows = rows[(rows >= start) & (rows < start + size)]
        return take_filters(self.weight, rows), self.bias.index_select(0, rows)

    def _ids(self, rows: Tensor | None) -> Tensor | None:
        if rows is None or self.order is None:
            return self.order if rows is None else rows
        return self.order[rows]


class SelfGatedConv(GatedConv):
    """One that makes the gate from its own input, which is computed in full for that.

    layer: what decides; its own weight is not used.
    """

    def __init__(self, layer: SelfGatedConv2d, *args) -> None:
        super().__init__(*args)
        self.layer = copy.deepcopy(layer)  # others may share it
        del self.layer.weight, self.layer.bias
        self.register_buffer('channels', None)

    def expect(self, channels: Tensor) -> None:
        """Take the input in another order from now on: ``[C]``, its channels one by one."""
        self.weight = gather(self.weight, channels, self.pool)
        self.channels = channels
        self.layer.gate_pool = MatrixPool(channels.argsort())

    def reads(self, gate: Gate | None, needed: Tensor | None) -> Tensor | None:
        """See :class:`Unit`."""
        return None

    def run(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`Unit`."""
        data = x.in_order(self.in_channels, self.pool)
        gate = self.layer.gate(data)
        if self.channels is not None:
            strength = None if gate.strength is None else gate.strength[..., self.channels]
            gate = Gate(gate.mask[..., self.channels], strength, gate.assign)
        return super().run(FeatureMap(data), gate, needed, out)
