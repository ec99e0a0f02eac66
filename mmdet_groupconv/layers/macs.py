"""Multiply-accumulates, read from gates while a network runs; differentiable in the masks.

The convention is the one that the papers' figures were made with (MSGC's released code): a
convolution counts kh*kw*C/groups*K*H*W, plus K*H*W for the norm that follows it, except norms of
shortcut and of MobileNetV2's projecting convolutions; max-pooling 4 an output; global pooling its
input; a linear layer in*out. An attention or saliency that multiplies a map counts as much as the
map for each group. All per image, means over the batch.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .functional import filter_means
from .gate import Gate, GroupedLayer
from .gate_net import GateNet, GatePool

_NORMS = _BatchNorm, nn.GroupNorm
METERED = GroupedLayer, nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AdaptiveAvgPool2d, *_NORMS
_UNCOUNTED_NORMS = ('downsample.', 'linear_conv.')


@dataclass
class LayerMacs:
    """MACs of one call of one layer, for one image.

    name: the module's, below the metered one. dense: of the dense layer with its norm.
    is_gate_net: belongs to deciding the gates. gate: of the call, None for a layer that isn't
    grouped. strength: of multiplying the map by attention, all groups, fully open.
    filters: K. batch: how many maps or vectors the call saw, for all images together.
    unread: ``[K]``, the share of images on which nobody reads the output channel, or None.
    """

    name: str
    dense: float
    is_gate_net: bool = False
    gate: Gate | None = None
    strength: float = 0
    filters: int = 0
    batch: int = 0
    unread: Tensor | None = None

    @cached_property
    def density(self) -> Tensor | None:
        """Share of channels that each group reads, ``[G]``, the mean over the batch."""
        if self.gate is None:
            return None
        mask = self.gate.mask
        images, _, channels = mask.shape
        means = mask.sum(dim=(0, 2), dtype=torch.float64)
        return means / max(images * channels, 1)  # of no boxes: 0

    @property
    def connected(self) -> Tensor | None:
        """Share of the connections, filters x channels, that is open."""
        return None if self.gate is None else (self._sizes * self.density).sum()

    @cached_property
    def masked(self) -> Tensor | float:
        """What the gates leave of a grouped layer: each group's filters x channels read."""
        return 0.0 if self.gate is None else self._over_groups(self.density, self._sizes)

    @cached_property
    def saved(self) -> Tensor | float:
        """Of that, work whose output nobody reads. A constant for gradients, as published."""
        if self.unread is None:
            return 0.0
        if self.gate is None:
            return self.dense * self.unread.mean()
        with torch.no_grad():
            unread = filter_means(self.unread, self.gate.mask, self.gate.assign)
            return self._over_groups(self.density, unread)

    @cached_property
    def _sizes(self) -> Tensor:
        """Share of the filters that each group has, ``[G]``."""
        return _group_sizes(self.gate, self.filters)

    def _over_groups(self, density: Tensor, shares: Tensor) -> Tensor:
        work = shares * self.dense
        if self.strength:  # each group multiplies the map anew
            within = shares / self._sizes.clamp(min=1e-12)
            work = work + within * (self.strength / len(density))
        return (density * work).sum()


@dataclass
class Macs:
    """What a forward pass cost, for one image (a mean over the batch's).

    original: the dense host. always_on: what no gate touches. masked: the sum over groups of
    filters x channels read. unread: of that and of always_on, work whose output no later gate
    reads. gate_nets: deciding the gates. layers: a row a layer call.
    """

    layers: list[LayerMacs]
    _parts: dict[str, 'Macs'] = field(default_factory=dict, repr=False)

    @property
    def original(self) -> int:
        return sum(row.dense for row in self.layers if not row.is_gate_net)

    @property
    def always_on(self) -> int:
        return sum(row.dense for row in self.layers if row.gate is None and not row.is_gate_net)

    @cached_property
    def masked(self) -> Tensor | float:
        return _total([row.masked for row in self.layers])

    @cached_property
    def unread(self) -> Tensor | float:
        return _total([row.saved for row in self.layers])

    @property
    def gate_nets(self) -> int:
        return sum(row.dense for row in self.layers if row.is_gate_net)

    @property
    def macs(self) -> Tensor | float:
        """always_on + masked - unread + gate_nets."""
        return self.always_on + self.masked - self.unread + self.gate_nets

    @property
    def ratio(self) -> Tensor | float:
        """macs / original; 1 where nothing was counted."""
        return self.macs / self.original if self.original else 1.0

    def part(self, name: str) -> 'Macs':
        """The MACs of one child of the metered module, e.g. a detector's ``backbone``."""
        if name not in self._parts:
            rows = [row for row in self.layers if row.name.split('.')[0] == name]
            self._parts[name] = Macs(rows)
        return self._parts[name]


class MacMeter:
    """Counts the MACs of the modules below `root`, as a context or between attach and detach.

    A block that gates one convolution by another's input says who reads whom in a class attribute
    ``readers``: ``{'conv2': ('conv1',)}`` means that all of conv1's output goes to conv2 alone,
    channel by channel; then what conv2 doesn't read, conv1 need not compute.

    >>> with MacMeter(backbone) as meter:
    ...     backbone(images)
    >>> meter.take().ratio
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self._handles: list = []
        self._rows: dict[nn.Module, list[LayerMacs]]
        self._last: tuple  # a layer's output (weakly) and its row: whose norm may come next
        self._images: int  # the first layer's batch; later ones may see boxes
        self.reset()

    def __enter__(self) -> 'MacMeter':
        self.attach()
        return self

    def __exit__(self, *_) -> None:
        self.detach()

    def attach(self) -> None:
        """Begin to count; for a meter whose life is no single block of code."""
        for name, module, in_gate_net in _counted_modules(self.root):
            self._hook(name, module, in_gate_net)

    def detach(self) -> None:
        """Leave the modules as they were."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def open_gates(self) -> None:
        """Take gates that depend on the image as fully open in what was counted."""
        for layer, rows in self._rows.items():
            if isinstance(layer, GroupedLayer) and not layer.static_gate and layer.frozen is None:
                for row in rows:
                    row.gate = row.gate._replace(mask=torch.ones_like(row.gate.mask))

    def take(self) -> Macs:
        """The MACs counted since the last call, which are then forgotten."""
        self._find_unread()
        rows = [row for calls in self._rows.values() for row in calls]
        self.reset()
        return Macs(rows)

    def reset(self) -> None:
        """Forget what was counted, e.g. what activation checkpointing computed a second time."""
        self._rows = {}
        self._last = (None, None)
        self._images = 0

    def _hook(self, name: str, module: nn.Module, in_gate_net: bool) -> None:
        if isinstance(module, GroupedLayer):

            def on_gate(layer: nn.Module, gate: Gate, x: Tensor, y: Tensor) -> None:
                self._images = self._images or x.size(0)
                row = LayerMacs(name, self._weigh(layer, x, y), gate=gate, filters=y.size(1))
                if gate.strength is not None:
                    row.strength = gate.mask.size(1) * self._per_image(x)
                self._add(layer, row, y)

            self._handles.append(module.register_gate_hook(on_gate))
            return

        def on_forward(layer: nn.Module, args: tuple, y: Tensor) -> None:
            x = args[0]
            self._images = self._images or x.size(0)
            if not isinstance(layer, _NORMS):
                self._add(layer, LayerMacs(name, self._weigh(layer, x, y), in_gate_net), y)
            elif not any(part in f'.{name}' for part in _UNCOUNTED_NORMS):
                self._add_norm(name, layer, x, y, in_gate_net)

        self._handles.append(module.register_forward_hook(on_forward))

    def _add(self, layer: nn.Module, row: LayerMacs, y: Tensor) -> None:
        row.batch = y.size(0)
        self._rows.setdefault(layer, []).append(row)
        self._last = (weakref.ref(y), row)

    def _add_norm(
        self, name: str, norm: nn.Module, x: Tensor, y: Tensor, in_gate_net: bool
    ) -> None:
        output, row = self._last
        if output is not None and output() is x and row.is_gate_net == in_gate_net:
            row.dense += self._per_image(y)
        else:
            row = LayerMacs(name, self._per_image(y), in_gate_net)
            self._rows.setdefault(norm, []).append(row)

    def _weigh(self, layer: nn.Module, x: Tensor, y: Tensor) -> float:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            return layer.weight[0].numel() * self._per_image(y)
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            return self._per_image(x)
        return 4 * self._per_image(y)

    def _per_image(self, x: Tensor) -> float:
        whole, rest = divmod(x.numel(), self._images)
        return x.numel() / self._images if rest else whole

    def _find_unread(self) -> None:
        for block in self.root.modules():
            for reader, sources in getattr(block, 'readers', {}).items():
                layer = block.get_submodule(reader)
                if isinstance(layer, GroupedLayer) and layer.gate_from_input:
                    continue
                for call, row in enumerate(self._rows.get(layer, [])):
                    if row.gate is None:
                        continue
                    nobody = _read_by_nobody(row)
                    for source in sources:
                        self._rows[block.get_submodule(source)][call].unread = nobody


def _read_by_nobody(row: LayerMacs) -> Tensor:
    """``[C]``, the share of images on which no group that has filters reads the channel."""
    mask = row.gate.mask.detach()
    if row.gate.assign is not None:
        mask = mask * (_group_sizes(row.gate, row.filters).detach() > 0)[:, None]
    return (1 - mask.amax(dim=1)).sum(dim=0, dtype=torch.float64) / max(len(mask), 1)


def _group_sizes(gate: Gate, filters: int) -> Tensor:
    """Share of the filters that each group has, ``[G]``."""
    if gate.assign is None:
        groups = gate.mask.size(1)
        return gate.mask.new_full((groups,), 1 / groups, dtype=torch.float64)
    ones = gate.mask.new_ones(filters, dtype=torch.float64)
    return filter_means(ones, gate.mask, gate.assign)


def _total(values: list[Tensor | float]) -> Tensor | float:
    tensors = [value for value in values if isinstance(value, Tensor)]  # others are zeros
    return torch.stack(tensors).sum() if tensors else 0.0


def _counted_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    gate_parts = set()
    for module in root.modules():
        if isinstance(module, GateNet | GatePool | GroupedLayer):
            gate_parts.update(module.modules())
        if isinstance(module, GroupedLayer):  # it is grouped itself, only what it owns decides
            gate_parts.remove(module)
    for name, module in root.named_modules():
        if isinstance(module, METERED):
            yield name, module, module in gate_parts
