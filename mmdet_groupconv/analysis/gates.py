"""What grouped layers read, image by image."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import Gate, GroupedConv2d, GroupedLayer


@dataclass(frozen=True, eq=False)
class LayerGates:
    """What the groups of one layer read.

    name: in the network. method: such as 'MSGC'. static: all images share the gate.
    read: ``[N, G, C]``, uint8 or float32, the share of an image's calls (a tower runs on every
    level) in which a group reads a channel; N is 1 for static layers and for those whose batch is
    boxes, the mean over them. assign: ``[K]``, each filter's group. macs: of the dense layer, for
    one image.
    """

    name: str
    method: str
    static: bool
    read: np.ndarray
    assign: np.ndarray
    macs: float

    @property
    def sizes(self) -> np.ndarray:
        """How many filters each group has, ``[G]``."""
        return np.bincount(self.assign, minlength=self.read.shape[1])

    @property
    def is_partition(self) -> bool:
        """Whether the groups are fixed and share out the channels, one group a channel."""
        several = self.static and self.read.shape[1] > 1
        return several and bool((self.read[0].sum(axis=0) == 1).all())

    def density(self) -> np.ndarray:
        """Share of the channels that each group reads, ``[G]``, the mean over images."""
        return self.read.mean(axis=(0, 2), dtype=np.float64)

    def connectivity(self) -> np.ndarray:
        """Share of the images on which a group reads a channel, ``[G, C]``."""
        return self.read.mean(axis=0, dtype=np.float64)

    def variation(self) -> tuple[float, float, float]:
        """Shares of the connections (filters x channels) always, sometimes and never read."""
        always = self._weigh((self.read == 1).all(axis=0).mean(axis=1))
        never = self._weigh((self.read == 0).all(axis=0).mean(axis=1))
        return always, 1 - always - never, never

    def amount(self) -> np.ndarray:
        """Share of the connections that each image reads, ``[N]``."""
        return self.read.mean(axis=2, dtype=np.float64) @ self.sizes / len(self.assign)

    def _weigh(self, of_groups: np.ndarray) -> float:
        return float(of_groups @ self.sizes / len(self.assign))


def amounts(layers: list[LayerGates]) -> np.ndarray:
    """Share of the MACs of the layers with gates by image that each image needs, ``[N]``.

    Empty where there is no such layer.
    """
    images = max(len(layer.read) for layer in layers)
    dynamic = [layer for layer in layers if not layer.static and len(layer.read) == images]
    if not dynamic:
        return np.zeros(0)
    total = sum(layer.macs for layer in dynamic)
    return sum(layer.amount() * layer.macs for layer in dynamic) / total


class GateRecorder:
    """Records what the grouped layers of a network read, as a context.

    >>> with GateRecorder(model, max_images=64) as recorder:
    ...     for batch in batches:
    ...         model.test_step(batch)
    >>> recorder.take()

    max_images: later images are left out. batches: over how many of them the images are to be
    spread, for data that is sorted by class; by default the first ones are taken.

    Raises ValueError for a model without grouped layers.
    """

    def __init__(self, model: nn.Module, max_images: int = 64, batches: int = 1) -> None:
        self.model = model
        self.max_images = max_images
        self.of_batch = -(-max_images // batches)
        self.images = 0
        self._layers = {n: m for n, m in model.named_modules() if isinstance(m, GroupedLayer)}
        if not self._layers:
            raise ValueError(f'{type(model).__name__} has no grouped layers, so nothing to show')
        self._records: dict[str, _Record] = {}
        self._handles: list = []
        self._batch = 0  # images of the forward pass that is under way

    @property
    def wanted(self) -> int:
        """How many images of the next batch are recorded, its first ones, where it has as many."""
        return min(self.of_batch, self.max_images - self.images)

    def __enter__(self) -> 'GateRecorder':
        self._records = {name: _Record() for name in self._layers}
        for name, layer in self._layers.items():
            self._handles.append(layer.register_gate_hook(self._listener(name)))
        self._handles += [
            self.model.register_forward_pre_hook(self._begin, with_kwargs=True),
            self.model.register_forward_hook(self._end),
        ]
        return self

    def __exit__(self, *_) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def take(self) -> list[LayerGates]:
        """What was recorded, in the network's order, without layers that were never reached."""
        return [
            self._records[name].gates(name, layer, _method(self.model, name))
            for name, layer in self._layers.items()
            if self._records[name].batches
        ]

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        # A pass that MMEngine's analyser traces is no other image.
        ignored = not self.wanted or torch.jit.is_tracing()
        self._batch = 0 if ignored else len(args[0] if args else kwargs['inputs'])
        for record in self._records.values():
            record.calls.clear()  # of a pass that failed

    def _listener(self, name: str) -> Callable:
        def listen(layer: nn.Module, gate: Gate, x: Tensor, y: Tensor) -> None:
            if self._batch:
                self._records[name].listen(layer, gate, y, self._batch)

        return listen

    def _end(self, *_) -> None:
        if self._batch:
            for record in self._records.values():
                record.end_batch(self._batch, self.wanted)
        self.images += min(self._batch, self.wanted)
        self._batch = 0


class _Record:
    """Of one layer. calls: of the batch under way. batches: ``[n, G, C]`` and the rows behind."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, float]] = []
        self.batches: list[tuple[np.ndarray, int]] = []
        self.macs, self.images, self.by_image = 0.0, 0, True
        self.assign: np.ndarray

    def listen(self, layer: nn.Module, gate: Gate, y: Tensor, images: int) -> None:
        self.calls.append((gate.mask.detach() > 0.5, layer.weight[0].numel() * y.numel()))
        if not self.batches:
            self.assign = _filter_groups(gate, y.size(1))

    def end_batch(self, images: int, wanted: int) -> None:
        masks = [mask for mask, _ in self.calls if len(mask)]
        self.macs += sum(macs for _, macs in self.calls)
        self.images += images
        self.calls.clear()
        if not masks:
            return
        if any(len(mask) != images for mask in masks):  # boxes, or one gate for all images
            rows = torch.cat(masks)
            self.by_image = False
            self.batches.append((rows.float().mean(dim=0, keepdim=True).cpu().numpy(), len(rows)))
        elif len(masks) == 1:
            self.batches.append((masks[0][:wanted].byte().cpu().numpy(), images))
        else:
            shares = torch.stack([mask[:wanted].float() for mask in masks]).mean(dim=0)
            self.batches.append((shares.cpu().numpy(), images))

    def gates(self, name: str, layer: nn.Module, method: str) -> LayerGates:
        static = layer.static_gate or getattr(layer, 'frozen', None) is not None
        if static:
            read = self.batches[-1][0][:1].astype(np.uint8)
        elif self.by_image:
            read = np.concatenate([rows for rows, _ in self.batches])
        else:
            means = [rows.mean(axis=0, keepdims=True) for rows, _ in self.batches]
            weights = [count for _, count in self.batches]
            read = np.average(means, axis=0, weights=weights).astype(np.float32)
        assign = self.assign
        if static and read.shape[1] == len(assign):  # each filter by itself: SGC
            read, assign = _merged(read)
        return LayerGates(name, method, static, read, assign, self.macs / self.images)


def _filter_groups(gate: Gate, filters: int) -> np.ndarray:
    if gate.assign is None:  # equal, contiguous
        groups = gate.mask.size(1)
        return np.arange(filters) * groups // filters
    assign = gate.assign.detach()
    return (assign.argmax(dim=1) if assign.dim() == 2 else assign).cpu().numpy()


def _merged(read: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Filters that read the same are one group. read: ``[1, K, C]``."""
    patterns, assign = np.unique(read[0], axis=0, return_inverse=True)
    return patterns[None], assign.reshape(-1)


def _method(model: nn.Module, name: str) -> str:
    """From the layer's type, or from its block's where the block makes the gate."""
    kind = type(model.get_submodule(name)).__name__
    if kind != GroupedConv2d.__name__:
        return _letters(kind) or re.sub(r'(Conv2d|Linear)$', '', kind)
    owners = [name[: dot.start()] for dot in re.finditer(r'\.', name)][::-1]
    kinds = (type(model.get_submodule(owner)).__name__ for owner in owners)
    return next(filter(None, map(_letters, kinds)), kind)


def _letters(kind: str) -> str:
    """``MSGC`` of ``MSGCBasicBlock``."""
    found = re.match(r'[A-Z]+(?=[A-Z][a-z])', kind)
    return found.group() if found else ''
