"""Channels of whole networks in orders in which the groups that read them lie together."""

from collections import defaultdict

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from .graph import Graph
from .plan import needed_filters
from .ways import Way, ways_of

_KEEPS_CHANNELS = 'MaxPool', 'AveragePool', 'GlobalAveragePool', 'Resize'
_OF_SIZES = 'Shape', 'Identity'


def relabel(model: ModelProto) -> ModelProto:
    """The same network, its channels numbered so that equal groups are contiguous.

    Whatever adds to a residual stream, or reads it, has its weights reordered with it, so that
    nothing is gathered where groups are the same, and runs are where they are not. Channels of the
    network's own outputs stay where they are, and those of maps that other nodes look into.
    """
    return _Relabelling(model).model


class _Relabelling:
    def __init__(self, model: ModelProto) -> None:
        self.graph = Graph(model.graph)
        self._parent: dict[str, str] = {}  # of tensors, and of sides of shared constants
        self._fixed: set[str] = set()
        for node in self.graph.nodes:
            self._join(node)
        ends = [value.name for value in (*model.graph.input, *model.graph.output)]
        self._fixed = {self._space(name) for name in (*self._fixed, *ends)}
        orders = self._orders()
        self.model = ModelProto()
        self.model.CopyFrom(model)
        new = {}
        for node in self.graph.nodes:
            new.update(self._reordered(node, orders))
        for tensor in self.model.graph.initializer:
            if tensor.name in new:
                tensor.CopyFrom(numpy_helper.from_array(new[tensor.name], tensor.name))

    def _space(self, name: str) -> str:
        """The one that stands for all tensors whose channels are numbered alike."""
        while (parent := self._parent.get(name, name)) != name:
            name = parent
        return name

    def _unite(self, *names: str) -> None:
        first = self._space(names[0])
        for name in names[1:]:
            self._parent[self._space(name)] = first

    def _join(self, node: NodeProto) -> None:
        convolves = self.graph.weight(node) is not None
        if convolves or self.graph.is_depthwise(node):
            x, y = node.input[0], node.output[0]
            if not convolves:
                self._unite(x, y)
            for name in self._constants(node):  # equal levels share them
                self._unite(y, f'{name} filters')
            if convolves:
                self._unite(x, f'{self._constants(node)[0]} channels')
        elif self.graph.looks_at_values(node) or node.op_type in _KEEPS_CHANNELS:
            self._unite(node.input[0], node.output[0])
        elif node.op_type == 'Add' and all(self.graph.constant(n) is None for n in node.input):
            self._unite(*node.input, *node.output)
        elif node.op_type not in _OF_SIZES:
            self._fixed.update(name for name in (*node.input, *node.output) if name)

    def _constants(self, node: NodeProto) -> list[str]:
        """The initializers of a convolution's weight and bias."""
        return [self.graph.root(name) for name in node.input[1:]]

    def _orders(self) -> dict[str, np.ndarray]:
        """For spaces that may be numbered anew: the channels in their new order."""
        groups: dict[str, list[np.ndarray]] = defaultdict(list)
        needed = needed_filters(self.graph)
        for node in self.graph.nodes:
            weight = self.graph.weight(node)
            way = None if weight is None else _native(weight, needed[node.output[0]])
            if way is None:
                continue
            for name, size, side in ((node.input[0], 1, 'reads'), (node.output[0], 0, 'filters')):
                group = np.full(weight.shape[size], len(way.bundles))
                for number, bundle in enumerate(way.bundles):
                    group[getattr(bundle, side)] = number
                groups[self._space(name)].append(group)
        # Coarse groups first: of nested ones all are contiguous then.
        return {
            space: np.lexsort(sorted(found, key=lambda group: -group.max()))
            for space, found in groups.items()
            if space not in self._fixed
        }

    def _reordered(self, node: NodeProto, orders: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A convolution's constants, by name."""
        weight = self.graph.weight(node)
        if weight is None and not self.graph.is_depthwise(node):
            return {}
        filters = orders.get(self._space(node.output[0]))
        arrays = [self.graph.constant(name) for name in node.input[1:]]
        if filters is not None:
            arrays = [array[filters] for array in arrays]
        channels = orders.get(self._space(node.input[0]))
        if weight is not None and channels is not None:
            arrays[0] = arrays[0][:, channels]
        return dict(zip(self._constants(node), arrays, strict=True))


def _native(weight: np.ndarray, needed: np.ndarray) -> Way | None:
    """The most equal groups of a weight that one convolution can have."""
    native = [way for way in ways_of(weight, needed) if way.native]
    return max(native, key=lambda way: len(way.bundles), default=None)
