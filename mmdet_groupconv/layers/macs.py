"""Multiply-accumulates, read from gates while a network runs; differentiable in the masks.

The convention is the one that the papers' figures were made with (MSGC's released code): a
convolution counts kh*kw*C/groups*K*H*W, plus K*H*W for the norm that follows it, except norms of
shortcut and of MobileNetV2's projecting convolutions; max-pooling 4 an output; global pooling its
input; a linear layer in*out. An attention or saliency that multiplies a map counts as much as the
map for each group. All per image, means over the batch.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .conv import GroupedConv2d
from .gate import Gate
from .msgc import GateNet, GatePool

_NORMS = _BatchNorm, nn.GroupNorm
_UNCOUNTED_NORMS = ('downsample.', 'linear_conv.')


@dataclass
class LayerMacs:
    """MACs of one call of one layer, for one image.

    name: the module's, below the metered one. dense: of the dense layer with its norm.
    is_gate_net: belongs to deciding the gates. mask: ``[B or 1, G, C]`` or None for a layer that
    isn't grouped. strength: of multiplying the map by attention, all groups, fully open.
    unread: ``[K]``, the share of images on which nobody reads the output channel, or None.
    """

    name: str
    dense: int
    is_gate_net: bool = False
    mask: Tensor | None = None
    strength: int = 0
    unread: Tensor | None = None

    @property
    def density(self) -> Tensor | None:
        """Share of channels that each group reads, ``[G]``, the mean over the batch."""
        return None if self.mask is None else self.mask.double().mean(dim=(0, 2))

    @property
    def masked(self) -> Tensor | float:
        """What the gates leave of a grouped layer."""
        return 0.0 if self.mask is None else self.density.mean() * (self.dense + self.strength)

    @property
    def saved(self) -> Tensor | float:
        """Of that, work whose output nobody reads. A constant for gradients, as published."""
        if self.unread is None:
            return 0.0
        if self.mask is None:
            return self.dense * self.unread.mean()
        heads = self.unread.view(len(self.density), -1).mean(dim=1)  # [G]
        return (self.density.detach() * heads).mean() * (self.dense + self.strength)


@dataclass
class Macs:
    """What a forward pass cost, for one image (a mean over the batch's).

    original: the dense host. always_on: what no gate touches. masked: the sum over groups of
    filters x channels read. unread: of that and of always_on, work whose output no later gate
    reads. gate_nets: deciding the gates. layers: a row a layer call.
    """

    layers: list[LayerMacs]

    @property
    def original(self) -> int:
        return sum(row.dense for row in self.layers if not row.is_gate_net)

    @property
    def always_on(self) -> int:
        return sum(row.dense for row in self.layers if row.mask is None and not row.is_gate_net)

    @property
    def masked(self) -> Tensor | float:
        return sum(row.masked for row in self.layers)

    @property
    def unread(self) -> Tensor | float:
        return sum(row.saved for row in self.layers)

    @property
    def gate_nets(self) -> int:
        return sum(row.dense for row in self.layers if row.is_gate_net)

    @property
    def macs(self) -> Tensor | float:
        """always_on + masked - unread + gate_nets."""
        return self.always_on + self.masked - self.unread + self.gate_nets

    @property
    def ratio(self) -> Tensor | float:
        """macs / original."""
        return self.macs / self.original


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
        self._last_conv: tuple  # its output (weakly) and its row: whose norm may come next
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

    def take(self) -> Macs:
        """The MACs counted since the last call, which are then forgotten."""
        self._find_unread()
        rows = [row for calls in self._rows.values() for row in calls]
        self.reset()
        return Macs(rows)

    def reset(self) -> None:
        """Forget what was counted, e.g. what activation checkpointing computed a second time."""
        self._rows = {}
        self._last_conv = (None, None)

    def _hook(self, name: str, module: nn.Module, in_gate_net: bool) -> None:
        if isinstance(module, GroupedConv2d):

            def on_gate(layer: nn.Module, gate: Gate, x: Tensor, y: Tensor) -> None:
                groups = gate.mask.size(1)
                extra = 0 if gate.strength is None else groups * x[0].numel()
                row = LayerMacs(name, _conv_macs(layer, y), mask=gate.mask, strength=extra)
                self._add(layer, row, y)

            self._handles.append(module.register_gate_hook(on_gate))
            return

        def on_forward(layer: nn.Module, args: tuple, y: Tensor) -> None:
            if isinstance(layer, _NORMS):
                self._add_norm(name, layer, args[0], y, in_gate_net)
            else:
                self._add(layer, LayerMacs(name, _dense_macs(layer, args[0], y), in_gate_net), y)

        self._handles.append(module.register_forward_hook(on_forward))

    def _add(self, layer: nn.Module, row: LayerMacs, y: Tensor) -> None:
        self._rows.setdefault(layer, []).append(row)
        self._last_conv = (weakref.ref(y), row)

    def _add_norm(
        self, name: str, norm: nn.Module, x: Tensor, y: Tensor, in_gate_net: bool
    ) -> None:
        if any(part in f'.{name}' for part in _UNCOUNTED_NORMS):
            return
        output, row = self._last_conv
        if output is not None and output() is x:
            row.dense += y[0].numel()
        else:
            self._rows.setdefault(norm, []).append(LayerMacs(name, y[0].numel(), in_gate_net))

    def _find_unread(self) -> None:
        for block in self.root.modules():
            for reader, sources in getattr(block, 'readers', {}).items():
                calls = self._rows.get(block.get_submodule(reader), [])
                for call, row in enumerate(calls):
                    nobody = (1 - row.mask.detach().double()).prod(dim=1).mean(dim=0)  # [C]
                    for source in sources:
                        self._rows[block.get_submodule(source)][call].unread = nobody


def _counted_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    kinds = nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AdaptiveAvgPool2d, *_NORMS
    gate_parts = {
        part
        for module in root.modules()
        if isinstance(module, GateNet | GatePool)
        for part in module.modules()
    }
    for name, module in root.named_modules():
        if isinstance(module, kinds):
            yield name, module, module in gate_parts


def _dense_macs(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    if isinstance(layer, nn.Conv2d):
        return _conv_macs(layer, y)
    if isinstance(layer, nn.Linear):
        return layer.in_features * y[0].numel()
    return x[0].numel() if isinstance(layer, nn.AdaptiveAvgPool2d) else 4 * y[0].numel()


def _conv_macs(layer: nn.Conv2d, y: Tensor) -> int:
    return layer.weight[0].numel() * y[0].numel()
