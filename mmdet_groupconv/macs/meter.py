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

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import Gate, GateNet, GatePool, GroupedLayer
from ..layers.functional import filter_means
from .report import LayerMacs, MacReport, Number

_NORMS = _BatchNorm, nn.GroupNorm
METERED = GroupedLayer, nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AdaptiveAvgPool2d, *_NORMS
# Of MMDetection's ResNet and MobileNetV2, by the names of the modules that have them.
_UNCOUNTED_NORMS = ('downsample.', 'linear_conv.')


class MacMeter:
    """Counts the MACs of the modules below `root`, as a context or between attach and detach.

    A block that gates one convolution by another's input says who reads whom in a class attribute
    ``readers``: ``{'conv2': ('conv1',)}`` means that all of conv1's output goes to conv2 alone,
    channel by channel; then what conv2 doesn't read, conv1 need not compute.

    counting: False while what runs is not to be counted, e.g. what activation checkpointing
    computes a second time.

    >>> with MacMeter(backbone) as meter:
    ...     backbone(images)
    >>> meter.take().ratio
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.counting = True
        self._handles: list = []
        self._names: dict[nn.Module, str] = {}
        self._calls: dict[nn.Module, list[_Call]]
        self._last: tuple  # a layer's output (weakly) and its call: whose norm may come next
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
            self._names[module] = name
            self._hook(module, in_gate_net)

    def detach(self) -> None:
        """Leave the modules as they were."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def open_gates(self) -> None:
        """Take gates that depend on the image as fully open in what was counted."""
        for layer, calls in self._calls.items():
            if isinstance(layer, GroupedLayer) and not layer.static_gate and layer.frozen is None:
                for call in calls:
                    call.gate = call.gate._replace(mask=torch.ones_like(call.gate.mask))

    def count_for(self, part: str, maps: int) -> None:
        """Take layers below `part` as called for so many maps or vectors an image."""
        for layer, calls in self._calls.items():
            if self._names[layer].startswith(f'{part}.'):
                for call in calls:
                    call.scale_to(maps * self._images)

    def take(self) -> MacReport:
        """The MACs counted since the last call, which are then forgotten; all calls of a layer
        together."""
        self._find_unread()
        rows = [_row(self._names[layer], layer, calls) for layer, calls in self._calls.items()]
        self.reset()
        return MacReport(rows)

    def reset(self) -> None:
        """Forget what was counted."""
        self._calls = {}
        self._last = (None, None)
        self._images = 0

    def _hook(self, module: nn.Module, in_gate_net: bool) -> None:
        if isinstance(module, GroupedLayer):

            def on_gate(layer: nn.Module, gate: Gate, x: Tensor, y: Tensor) -> None:
                if not self._counts(layer):
                    return
                self._images = self._images or x.size(0)
                call = _Call(self._weigh(layer, x, y), gate=gate, filters=y.size(1))
                if gate.strength is not None:
                    call.strength = gate.mask.size(1) * self._per_image(x)
                self._add(layer, call, y)

            self._handles.append(module.register_gate_hook(on_gate))
            return

        def on_forward(layer: nn.Module, args: tuple, y: Tensor) -> None:
            if not self._counts(layer):
                return
            x = args[0]
            self._images = self._images or x.size(0)
            if not isinstance(layer, _NORMS):
                self._add(layer, _Call(self._weigh(layer, x, y), in_gate_net), y)
            elif not any(part in f'.{self._names[layer]}' for part in _UNCOUNTED_NORMS):
                self._add_norm(layer, x, y, in_gate_net)

        self._handles.append(module.register_forward_hook(on_forward))

    def _counts(self, layer: nn.Module) -> bool:
        return self.counting and layer in self._names  # a copy takes its hooks along

    def _add(self, layer: nn.Module, call: '_Call', y: Tensor) -> None:
        call.batch = y.size(0)
        self._calls.setdefault(layer, []).append(call)
        self._last = (weakref.ref(y), call)

    def _add_norm(self, norm: nn.Module, x: Tensor, y: Tensor, in_gate_net: bool) -> None:
        output, call = self._last
        if output is not None and output() is x and call.in_gate_net == in_gate_net:
            call.dense += self._per_image(y)
        else:
            self._calls.setdefault(norm, []).append(_Call(self._per_image(y), in_gate_net))

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
                for number, call in enumerate(self._calls.get(layer, [])):
                    if call.gate is None:
                        continue
                    nobody = _read_by_nobody(call)
                    for source in sources:
                        self._calls[block.get_submodule(source)][number].unread = nobody


@dataclass
class _Call:
    """Of one layer, for one image.

    dense: of the dense layer with its norm. in_gate_net: belongs to deciding the gates. gate: of
    the call, None for a layer that isn't grouped. strength: of multiplying the map by attention,
    all groups, fully open. filters: K. batch: how many maps or vectors the call saw, for all images
    together. unread: ``[K]``, the share of images on which nobody reads the output channel, or
    None.
    """

    dense: float
    in_gate_net: bool = False
    gate: Gate | None = None
    strength: float = 0
    filters: int = 0
    batch: int = 0
    unread: Tensor | None = None

    def scale_to(self, batch: int) -> None:
        """Count for so many maps or vectors; of none nothing is known."""
        if self.batch:
            self.dense *= batch / self.batch
            self.strength *= batch / self.batch
            self.batch = batch

    def density(self) -> Tensor:
        """Share of channels that each group reads, ``[G]``, the mean over the batch."""
        mask = self.gate.mask
        images, _, channels = mask.shape
        means = mask.sum(dim=(0, 2), dtype=torch.float64)
        return means / max(images * channels, 1)  # of no boxes: 0

    def sizes(self) -> Tensor:
        """Share of the filters that each group has, ``[G]``."""
        return _group_sizes(self.gate, self.filters)

    def work(self, shares: Tensor) -> Tensor:
        """Of each group where so much of the filters is its own, all channels read, ``[G]``."""
        work = shares * self.dense
        if self.strength:  # each group multiplies the map anew
            within = shares / self.sizes().clamp(min=1e-12)
            work = work + within * (self.strength / len(shares))
        return work

    def saved(self, density: Tensor | None) -> Number:
        """Work whose output nobody reads. A constant for gradients, as published."""
        if self.unread is None:
            return 0.0
        if self.gate is None:
            return self.dense * self.unread.mean()
        with torch.no_grad():
            unread = filter_means(self.unread, self.gate.mask, self.gate.assign)
            return (density * self.work(unread)).sum()


def _row(name: str, layer: nn.Module, calls: list[_Call]) -> LayerMacs:
    gates = [call.gate for call in calls if call.gate is not None]
    row = LayerMacs(name, note=vars(layer).get('why_dense'), gates=gates)
    opened = []
    for call in calls:
        if call.in_gate_net:
            row.gate_nets += call.dense
            continue
        row.original += call.dense
        density = None
        if call.gate is None:
            row.always_on += call.dense
        else:
            density, sizes = call.density(), call.sizes()
            row.masked = row.masked + (density * call.work(sizes)).sum()
            opened.append((density * sizes).sum())
        row.unread = row.unread + call.saved(density)
    if opened:
        row.density = sum(opened) / len(opened)
    return row


def _read_by_nobody(call: _Call) -> Tensor:
    """``[C]``, the share of images on which no group that has filters reads the channel."""
    mask = call.gate.mask.detach()
    if call.gate.assign is not None:
        mask = mask * (call.sizes().detach() > 0)[:, None]
    return (1 - mask.amax(dim=1)).sum(dim=0, dtype=torch.float64) / max(len(mask), 1)


def _group_sizes(gate: Gate, filters: int) -> Tensor:
    if gate.assign is None:
        groups = gate.mask.size(1)
        return gate.mask.new_full((groups,), 1 / groups, dtype=torch.float64)
    ones = gate.mask.new_ones(filters, dtype=torch.float64)
    return filter_means(ones, gate.mask, gate.assign)


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
