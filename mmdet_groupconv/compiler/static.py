"""Convolutions whose connections are the same for every image."""

import torch
from torch import Tensor

from ..layers import Gate
from .bundles import Bundle, Bundles
from .fastest import Fastest
from .fused import Activation, Geometry
from .maps import FeatureMap, gather, take_filters
from .memory import MapMemory
from .parting import bundlings
from .unit import ConvUnit

_READ = -1  # in the place of a way: the filters alone that this image's gates need


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
        self._kept: dict[int, Bundles] = {}
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

    def forward(
        self, x: FeatureMap, gate: Gate | None, needed: Tensor | None, out: Tensor | None
    ) -> FeatureMap:
        """See :class:`Unit`."""
        if self.geometry.groups > 1:  # a filter reads its group by position
            x = FeatureMap(x.in_order(self.in_channels, self.memory))
        tried = {}  # of these, the fastest is kept
        rows = None if needed is None or not self._can_skip() else needed.nonzero()[:, 0]

        def run(way: int, out: Tensor | None) -> FeatureMap:
            if way == _READ:
                return self._some(rows).run(x, self.in_channels, out, self.memory)
            bundles = self._kept.get(way) or tried.get(way)
            if bundles is None:
                bundles = tried[way] = self._bundles(way)
            return bundles.run(x, self.in_channels, out, self.memory)

        ways = list(range(len(self._ways())))
        if rows is not None and len(rows) < self.out_channels:
            ways.append(_READ)
        load = 1.0 if rows is None else len(rows) / self.out_channels
        way = self.forms.choose(x.data, ways, run, out, lambda: load)
        y = run(way, out)
        if way != _READ:
            self._kept[way] = self._kept.get(way) or tried[way]
        return y

    def describe(self, way: int) -> str:
        """A form in words."""
        if way == _READ:
            return 'filters that are read'
        number = len(self._ways()[way].unique())
        return f'{number} bundle{"s" if number > 1 else ""}'

    def _can_skip(self) -> bool:
        """Whether filters that an image doesn't need can be left out for it."""
        dense = self.connected is None and self.geometry.groups == 1
        return dense and self.filters is None

    def _some(self, rows: Tensor) -> Bundles:
        bundle = Bundle(None, take_filters(self.weight, rows), self.bias.index_select(0, rows))
        return Bundles([bundle], rows, self.geometry, self.activation)

    def _bundles(self, way: int) -> Bundles:
        labels, bundles, rows = self._ways()[way], [], []
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
                weight = gather(weight, channels, MapMemory())  # which is kept for good
            weight = weight.contiguous(memory_format=torch.channels_last)
            bundles.append(Bundle(channels, weight, self.bias[own]))
        order = torch.cat(rows)
        if self.filters is not None:
            order = self.filters[order]
        in_order = self.filters is None and bool((order.diff() > 0).all())
        order = None if in_order else order
        return Bundles(bundles, order, self.geometry, self.activation, lasting=True)

    def _ways(self) -> list[Tensor]:
        """The bundle of each filter, ``[K]``, in every way that is tried."""
        if not self._labels:
            connected = self.connected
            if connected is None:
                connected = torch.ones_like(self.weight[:, :1, 0, 0], dtype=torch.bool)
            found = bundlings(connected.cpu().numpy(), self.weight[0, 0].numel())
            self._labels = [torch.from_numpy(way).to(self.weight.device) for way in found]
        return self._labels
