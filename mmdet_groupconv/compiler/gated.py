"""Convolutions whose gates come with the image."""

import copy

import torch
from torch import Tensor

from ..layers import Gate, SelfGatedConv2d, grouped_conv2d
from .bundles import Bundle, Bundles
from .fastest import Fastest
from .fused import Activation, Geometry, convolve, convolve_onto
from .maps import FeatureMap, GlobalMean, gather, one_at_least, take_filters
from .unit import ConvUnit


class GatedConv(ConvUnit):
    """Runs the connections that one image needs; strength goes into the weights.

    Its forms: *heads*, a small convolution a head on the channels that it reads, gathered; *whole*,
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

    def forward(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`Unit`."""
        rows = None
        if needed is not None:
            rows = self._in_own_order(needed).nonzero()[:, 0]

        def run(form: str, out: Tensor | None) -> FeatureMap:
            if form == 'whole':
                return self._whole(x, gate, rows, out)
            return self._heads(gate, rows).run(x, self.in_channels, out, self.memory)

        def load() -> float:
            filters = 1.0 if rows is None else len(rows) / self.out_channels
            return filters * float(gate.mask[0].mean())

        return run(self.forms.choose(x.data, ('heads', 'whole'), run, out, load), out)

    def run_batch(
        self, x: FeatureMap, gate: Gate, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """The same for several images together, with all the work that their gates would save."""
        equal = len(set(self.sizes)) == 1
        y = grouped_conv2d(
            x.in_order(self.in_channels, self.memory),
            self.weight,
            gate.value.to(self.weight.dtype),
            None if equal else self.groups,
            self.bias,
            *self.geometry[:3],
        )
        y = self.before_finish(out).plain(y)
        return self.finish(FeatureMap(y, self.order), out)

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
            weight, value = (
                gather(weight, x.channels, self.memory),
                value.index_select(1, x.channels),
            )
        weight = weight * (value if len(value) == 1 else value[groups])[..., None, None]
        if out is not None and self.order is None:
            convolve_onto(out, x.data, weight, bias, self.geometry, self.activation)
            return FeatureMap(out)
        y = convolve(x.data, weight, bias, self.geometry, self.before_finish(out), self.memory)
        return self.finish(FeatureMap(y, self._ids(rows)), out)

    def _heads(self, gate: Gate, rows: Tensor | None) -> Bundles:
        value, opened = gate.value[0].to(self.weight.dtype), one_at_least(gate.mask[0] > 0)
        bundles, start = [], 0
        for head, size in enumerate(self.sizes):
            weight, bias = self._filters(start, size, rows)
            start += size
            if len(weight) == 0:
                continue
            channels, strength = opened[head].nonzero()[:, 0], value[head]
            if len(channels) == self.in_channels:
                channels = None
            else:
                weight, strength = gather(weight, channels, self.memory), strength[channels]
            bundles.append(Bundle(channels, weight * strength[:, None, None], bias))
        return Bundles(bundles, self._ids(rows), self.geometry, self.activation)

    def _filters(self, start: int, size: int, rows: Tensor | None) -> tuple[Tensor, Tensor]:
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

    layer: what decides. in_any_order: whether it looks at the pooled input alone, so that the input
    may come in another order (:meth:`expect`).
    """

    def __init__(self, layer: SelfGatedConv2d, *args) -> None:
        super().__init__(*args)
        self.layer = copy.deepcopy(layer)  # others may share it
        self.in_any_order = type(layer).gate is SelfGatedConv2d.gate
        self.pooling = GlobalMean()
        self.register_buffer('channels', None)

    def expect(self, channels: Tensor) -> None:
        """Take the input in another order from now on: ``[C]``, its channels one by one."""
        self.weight = gather(self.weight, channels, self.memory)
        self.channels = channels
        self.pooling = GlobalMean(channels.argsort())

    def reads(self, gate: Gate | None, needed: Tensor | None) -> Tensor | None:
        """See :class:`Unit`."""
        return None

    def forward(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`Unit`."""
        data = x.in_order(self.in_channels, self.memory)
        return super().forward(FeatureMap(data), self.own_gate(data), needed, out)

    def run_batch(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`GatedConv`."""
        data = x.in_order(self.in_channels, self.memory)
        return super().run_batch(FeatureMap(data), self.own_gate(data), needed, out)

    def own_gate(self, x: Tensor) -> Gate:
        """For the input ``[B, C, H, W]``, its channels as they are expected."""
        layer = self.layer
        if self.in_any_order:
            gate = layer.decide(self.pooling(x))
        else:
            gate = layer.gate(x.to(layer.weight.dtype))
        if self.channels is None:
            return gate
        strength = None if gate.strength is None else gate.strength[..., self.channels]
        return gate._replace(mask=gate.mask[..., self.channels], strength=strength)
