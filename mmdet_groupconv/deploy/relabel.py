"""Channels of whole networks in orders in which the groups that read them lie together."""

from collections import defaultdict
from collections.abc import Hashable

import numpy as np
import onnx_ir as ir

from .graph import POOLS, constant, is_depthwise, looks_at_values, weight_of
from .needed import needed_filters
from .ways import Way, ways_of

_KEEPS_CHANNELS = *POOLS, 'Resize'
_OF_SIZES = 'Shape', 'Identity'

_Orders = dict[Hashable, np.ndarray]  # the channels of spaces in their new order


def relabel(model: ir.Model) -> ir.Model:
    """The same network, its channels numbered so that equal groups are contiguous.

    Whatever adds to a residual stream, or reads it, has its weights reordered with it, so that
    nothing is gathered where groups are the same, and runs are where they are not. Channels of maps
    that other nodes look into stay where they are. Those of the network's own outputs are put back
    in order for the output alone, and stay where no order suits all layers around them. What
    RoIAlign takes from maps is followed into the layer that reads it flattened.

    model: in floats.
    """
    return _Relabelling(model).model


class _Relabelling:
    def __init__(self, model: ir.Model) -> None:
        self.model = model.clone()
        self.graph = self.model.graph
        self._parent: dict[Hashable, Hashable] = {}  # of tensors, and of sides of shared constants
        self._fixed: set[Hashable] = set()
        # Features of boxes, by the tensor that they are flattened to.
        self._flat: dict[ir.Value, ir.Value] = {}
        for node in self.graph:
            self._join(node)
        self._fixed = {self._space(value) for value in (*self._fixed, *self.graph.inputs)}
        for flat, features in self._flat.items():
            if self._space(flat) in self._fixed:
                self._fixed.add(self._space(features))
        orders = self._orders()
        new = {}
        for node in self.graph:
            new.update(self._reordered(node, orders))
        for value, array in new.items():
            value.const_value = ir.Tensor(array)
        for position, value in enumerate(self.graph.outputs):
            order = orders.get(self._space(value))
            if order is not None:
                self.graph.outputs[position] = self._in_order(value, order)

    def _in_order(self, value: ir.Value, order: np.ndarray) -> ir.Value:
        """An output, of channels in a new order, with them as they were."""
        tape = ir.tape.Tape(self.graph)
        places = tape.initializer(ir.Tensor(order.argsort()), f'{value.name}_places')
        y = tape.op('Gather', [value, places], dict(axis=1))
        y.name, y.type, y.shape = value.name, value.type, value.shape
        value.name = f'{value.name}_reordered'
        return y

    def _space(self, of: Hashable) -> Hashable:
        """The one that stands for all tensors whose channels are numbered alike."""
        while (parent := self._parent.get(of, of)) != of:
            of = parent
        return of

    def _unite(self, first: Hashable, *others: Hashable) -> None:
        for other in others:
            self._parent[self._space(other)] = self._space(first)

    def _join(self, node: ir.Node) -> None:
        (x, *rest), y = node.inputs or [None], node.outputs[0]
        convolves = weight_of(node) is not None
        if convolves or is_depthwise(node):
            if not convolves:
                self._unite(x, y)
            weight, *bias = rest
            # Equal levels share them; but all layers without a bias share the same zeros.
            shared = [value for value in bias if np.ptp(constant(value)) > 0]
            for value in (weight, *shared):
                self._unite(y, (value, 'filters'))
            if convolves:
                self._unite(x, (weight, 'channels'))
        elif looks_at_values(node) or node.op_type in _KEEPS_CHANNELS:
            self._unite(x, y)
        elif node.op_type == 'RoiAlign' or (node.op_type == 'Gather' and _axis(node) == 0):
            self._unite(x, y)
            self._fixed.update(rest)
        elif node.op_type == 'Concat' and _axis(node) == 0:
            self._unite(*node.inputs, y)
        elif node.op_type == 'Flatten' and _axis(node) == 1:
            self._flat[y] = x
        elif node.op_type in ('Transpose', 'Unsqueeze') and self._is_flat(x):
            self._unite(x, y)
        elif node.op_type == 'Gemm' and self._is_flat(x) and all(v.is_initializer() for v in rest):
            self._unite(x, (rest[0], 'channels'))
            self._fixed.add(y)
        elif node.op_type == 'Add' and all(constant(value) is None for value in node.inputs):
            self._unite(*node.inputs, y)
        elif node.op_type not in _OF_SIZES:
            self._fixed.update((*node.inputs, *node.outputs))

    def _is_flat(self, value: ir.Value) -> bool:
        return any(self._space(value) is self._space(flat) for flat in self._flat)

    def _orders(self) -> _Orders:
        """For spaces that may be numbered anew."""
        groups: dict[Hashable, list[np.ndarray]] = defaultdict(list)
        needed = needed_filters(self.graph)
        for node in self.graph:
            weight = weight_of(node)
            way = None if weight is None else _native(weight, needed[node.outputs[0]])
            if way is None:
                continue
            x, y = node.inputs[0], node.outputs[0]
            for value, size, side in ((x, 1, 'reads'), (y, 0, 'filters')):
                group = np.full(weight.shape[size], len(way.bundles))
                for number, bundle in enumerate(way.bundles):
                    group[getattr(bundle, side)] = number
                groups[self._space(value)].append(group)
        given = {self._space(value) for value in self.graph.outputs}
        orders = {}
        for space, found in groups.items():
            if space not in self._fixed and not self._is_flat(space):
                # Coarse groups first: of nested ones all are contiguous then.
                order = np.lexsort(sorted(found, key=lambda group: -group.max()))
                if space not in given or all(_is_contiguous(group[order]) for group in found):
                    orders[space] = order
        return orders | self._flat_orders(orders)

    def _flat_orders(self, orders: _Orders) -> _Orders:
        """Of flattened features: each channel's positions stay together."""
        found = {}
        for node in self.graph:
            if node.op_type not in ('Conv', 'Gemm') or not self._is_flat(node.inputs[0]):
                continue
            space = self._space(node.inputs[0])
            features = next(x for flat, x in self._flat.items() if self._space(flat) is space)
            order = orders.get(self._space(features))
            if order is not None:
                weight = constant(node.inputs[1])
                positions = weight.shape[_reading_axis(node)] // len(order)
                found[space] = (order[:, None] * positions + np.arange(positions)).ravel()
        return found

    def _reordered(self, node: ir.Node, orders: _Orders) -> dict[ir.Value, np.ndarray]:
        """A convolution's constants."""
        if node.op_type not in ('Conv', 'Gemm'):
            return {}
        weight, channels = weight_of(node), orders.get(self._space(node.inputs[0]))
        arrays = {value: constant(value) for value in node.inputs[1:]}
        if node.op_type == 'Gemm' and channels is not None:
            value = node.inputs[1]
            return {value: arrays[value].take(channels, axis=_reading_axis(node))}
        if weight is None and not is_depthwise(node):
            return {}
        filters = orders.get(self._space(node.outputs[0]))
        if filters is not None:
            arrays = {value: array[filters] for value, array in arrays.items()}
        if weight is not None and channels is not None:
            arrays[node.inputs[1]] = arrays[node.inputs[1]][:, channels]
        return arrays


def _axis(node: ir.Node) -> int:
    return node.attributes.get_int('axis', 1 if node.op_type == 'Flatten' else 0)


def _reading_axis(node: ir.Node) -> int:
    """Of a weight, the axis of what it reads."""
    return 1 if node.op_type == 'Conv' or node.attributes.get_int('transB') else 0


def _is_contiguous(group: np.ndarray) -> bool:
    return np.count_nonzero(np.diff(group)) + 1 == len(np.unique(group))


def _native(weight: np.ndarray, needed: np.ndarray) -> Way | None:
    """The most equal groups of a weight that one convolution can have."""
    native = [way for way in ways_of(weight, needed) if way.native]
    return max(native, key=lambda way: len(way.bundles), default=None)
