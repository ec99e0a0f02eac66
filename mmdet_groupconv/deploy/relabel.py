"""Channels of whole networks in orders in which the groups that read them lie together."""

from collections import defaultdict

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from .graph import Graph, attributes
from .plan import needed_filters
from .ways import Way, ways_of

_KEEPS_CHANNELS = 'MaxPool', 'AveragePool', 'GlobalAveragePool', 'Resize'
_OF_SIZES = 'Shape', 'Identity'


def relabel(model: ModelProto) -> ModelProto:
    """The same network, its channels numbered so that equal groups are contiguous.

    Whatever adds to a residual stream, or reads it, has its weights reordered with it, so that
    nothing is gathered where groups are the same, and runs are where they are not. Channels of the
    network's own outputs stay where they are, and those of maps that other nodes look into. What
    RoIAlign takes from maps is followed into the layer that reads it flattened.
    """
    return _Relabelling(model).model


class _Relabelling:
    def __init__(self, model: ModelProto) -> None:
        self.graph = Graph(model.graph)
        self._parent: dict[str, str] = {}  # of tensors, and of sides of shared constants
        self._fixed: set[str] = set()
        # Features of boxes, by the tensor that they are flattened to.
        self._flat: dict[str, str] = {}
        for node in self.graph.nodes:
            self._join(node)
        ends = [value.name for value in (*model.graph.input, *model.graph.output)]
        self._fixed = {self._space(name) for name in (*self._fixed, *ends)}
        for flat, features in self._flat.items():
            if self._space(flat) in self._fixed:
                self._fixed.add(self._space(features))
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
            weight, *bias = self._constants(node)
            # Equal levels share them; but all layers without a bias share the same zeros.
            shared = [name for name in bias if np.ptp(self.graph.constant(name)) > 0]
            for name in (weight, *shared):
                self._unite(y, f'{name} filters')
            if convolves:
                self._unite(x, f'{weight} channels')
        elif self.graph.looks_at_values(node) or node.op_type in _KEEPS_CHANNELS:
            self._unite(node.input[0], node.output[0])
        elif node.op_type == 'RoiAlign' or (node.op_type == 'Gather' and _axis(node) == 0):
            self._unite(node.input[0], node.output[0])
            self._fixed.update(node.input[1:])
        elif node.op_type == 'Concat' and _axis(node) == 0:
            self._unite(*node.input, *node.output)
        elif node.op_type == 'Flatten' and _axis(node) == 1:
            self._flat[node.output[0]] = node.input[0]
        elif node.op_type in ('Transpose', 'Unsqueeze') and self._is_flat(node.input[0]):
            self._unite(node.input[0], node.output[0])
        elif node.op_type == 'Gemm' and self._is_flat(node.input[0]) and self._is_known(node):
            self._unite(node.input[0], f'{self._constants(node)[0]} channels')
            self._fixed.add(node.output[0])
        elif node.op_type == 'Add' and all(self.graph.constant(n) is None for n in node.input):
            self._unite(*node.input, *node.output)
        elif node.op_type not in _OF_SIZES:
            self._fixed.update(name for name in (*node.input, *node.output) if name)

    def _is_known(self, node: NodeProto) -> bool:
        """Whether all but what it reads first is constant."""
        return all(self.graph.constant(name) is not None for name in node.input[1:])

    def _is_flat(self, name: str) -> bool:
        return any(self._space(name) == self._space(flat) for flat in self._flat)

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
        orders = {
            space: np.lexsort(sorted(found, key=lambda group: -group.max()))
            for space, found in groups.items()
            if space not in self._fixed and not self._is_flat(space)
        }
        return orders | self._flat_orders(orders)

    def _flat_orders(self, orders: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of flattened features: each channel's positions stay together."""
        found = {}
        for node in self.graph.nodes:
            if node.op_type not in ('Conv', 'Gemm') or not self._is_flat(node.input[0]):
                continue
            space = self._space(node.input[0])
            flat = next(name for name in self._flat if self._space(name) == space)
            order = orders.get(self._space(self._flat[flat]))
            if order is not None:
                weight = self.graph.constant(node.input[1])
                positions = weight.shape[_reading_axis(node)] // len(order)
                found[space] = (order[:, None] * positions + np.arange(positions)).ravel()
        return found

    def _reordered(self, node: NodeProto, orders: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A convolution's constants, by name."""
        if node.op_type not in ('Conv', 'Gemm'):
            return {}
        weight, channels = self.graph.weight(node), orders.get(self._space(node.input[0]))
        if node.op_type == 'Gemm' and channels is not None:
            array = self.graph.constant(node.input[1])
            own = array.take(channels, axis=_reading_axis(node))
            return {self._constants(node)[0]: own}
        if weight is None and not self.graph.is_depthwise(node):
            return {}
        filters = orders.get(self._space(node.output[0]))
        arrays = [self.graph.constant(name) for name in node.input[1:]]
        if filters is not None:
            arrays = [array[filters] for array in arrays]
        if weight is not None and channels is not None:
            arrays[0] = arrays[0][:, channels]
        return dict(zip(self._constants(node), arrays, strict=True))


def _axis(node: NodeProto) -> int:
    return attributes(node).get('axis', 1 if node.op_type == 'Flatten' else 0)


def _reading_axis(node: NodeProto) -> int:
    """Of a weight, the axis of what it reads."""
    return 1 if node.op_type == 'Conv' or attributes(node).get('transB') else 0


def _native(weight: np.ndarray, needed: np.ndarray) -> Way | None:
    """The most equal groups of a weight that one convolution can have."""
    native = [way for way in ways_of(weight, needed) if way.native]
    return max(native, key=lambda way: len(way.bundles), default=None)
