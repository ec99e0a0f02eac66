"""Convolutions whose connections are the same for every image."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..layers import Gate
from .bundling import bundlings
from .fastest import Fastest
from .fused import Activation, Geometry, convolve, convolve_onto
from .maps import FeatureMap, gather, join
from .unit import ConvUnit


class Bundle(NamedTuple):
    """Filters that are computed together, and the channels that at least one of them reads.

    channels: ``[n]``, None for all. weight: ``[k, n, kh, kw]``. bias: ``[k]``.
    """

    channels: Tensor | None
    weight: Tensor
    bias: Tensor


class StaticConv(ConvUnit):
    """Runs bundles of filters, each on the channels that it reads.

    Into which bundles (one is a dense convolution with zeros in it) is tried on first use.

    connections: ``[K, C]``, what the weights are multiplied by; None for a dense convolution.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        geometry: Geometry,
        activation: Activation,
        connections: Tensor | None = None,
    ) -> None:
        if connections is not None:
            weight = weight * connections.to(weight.dtype)[..., None, None]
        super().__init__(weight, bias, geometry, activation)
        connected = None if connections is None else connections != 0
        self.register_buffer('connected', connected)
        self.register_buffer('filters', None)  # those that are left of out_channels
        self.forms = Fastest()
        self._kept: dict[int, tuple[list[Bundle], Tensor | None]] = {}
        self._labels: list[Tensor] = []

    def _apply(self, *args, **kwargs) -> 'StaticConv':
        self._kept, self._labels = {}, []  # of another device or precision
        return super()._apply(*args, **kwargs)

    def reads(self, gate: Gate | None, needed: Tensor | None) -> Tensor | None:
        """See :class:`Unit`."""
        return None if self.connected is None else self.connected.any(dim=0)

    def drop(self, needed: Tensor) -> None:
        """Leave out the outputs that are not `needed`, ``[K]`` bool, for good."""
        keep = needed.nonzero()[:, 0]
        if len(keep) == len(needed) or self.geometry.groups > 1:
            return
        self.filters = keep
        self.weight, self.bias = self.weight[keep], self.bias[keep]
        if self.connected is not None:
            self.connected = self.connected[keep]

    def run(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`Unit`."""
        bundlings = {}  # of those that are tried, the fastest is kept

        def run(number: int, out: Tensor | None) -> FeatureMap:
            bundling = self._kept.get(number) or bundlings.get(number)
            if bundling is None:
                bundling = bundlings[number] = self._bundles(number)
            return self._run(bundling, x, out)

        number = self.forms.choose(x.data, range(len(self._ways())), run, out)
        y = run(number, out)
        self._kept[number] = self._kept.get(number) or bundlings[number]
        return y

    def _run(
        self, bundling: tuple[list[Bundle], Tensor | None], x: FeatureMap, out: Tensor | None
    ) -> FeatureMap:
        bundles, order = bundling
        places = x.positions(self.in_channels)
        if len(bundles) == 1:
            read = self._read(x.data, bundles[0], places)
            if out is None:
                y = convolve(read, *bundles[0][1:], self.geometry, self.activation, self.pool)
                return FeatureMap(y, order)
            convolve_onto(out, read, *bundles[0][1:], self.geometry, self.activation)
            return FeatureMap(out)
        activation = self.before_finish(out)
        parts = [
            convolve(
                self._read(x.data, bundle, places),
                *bundle[1:],
                self.geometry,
                activation,
                self.pool,
            )
            for bundle in bundles
        ]
        return self.finish(FeatureMap(join(parts, self.pool), order), out)

    def _read(self, x: Tensor, bundle: Bundle, places: Tensor | None) -> Tensor:
        if bundle.channels is None:
            return x if places is None else gather(x, places, self.pool)
        return gather(x, bundle.channels if places is None else places[bundle.channels], self.pool)

    def _bundles(self, number: int) -> tuple[list[Bundle], Tensor | None]:
        labels, bundles, rows = self._ways()[number], [], []
        for label in labels.unique():
            own = (labels == label).nonzero()[:, 0]
            rows.append(own)
            weight, channels = self.weight[own], None
            if self.connected is not None:
                channels = self.connected[own].any(dim=0).nonzero()[:, 0]
                if len(channels) == 0:
                    channels = channels.new_zeros(1)
                if len(channels) == self.in_channels:
                    channels = None
            if channels is not None:
                weight = gather(weight, channels, self.pool)
            weight = weight.contiguous(memory_format=torch.channels_last)
            bundles.append(Bundle(channels, weight, self.bias[own]))
        order = torch.cat(rows)
        if self.filters is not None:
            order = self.filters[order]
        in_order = self.filters is None and bool((order.diff() > 0).all())
        return bundles, None if in_order else order

    def _ways(self) -> list[Tensor]:
        """The bundle of each filter, ``[K]``, in every way that is tried."""
        if not self._labels:
            connected = self.connected
            if connected is None:
                connected = torch.ones_like(self.weight[:, :1, 0, 0], dtype=torch.bool)
            found = bundlings(connected.cpu().numpy(), self.weight[0, 0].numel())
            self._labels = [torch.from_numpy(way).to(self.weight.device) for way in found]
        return self._labels
