"""Putting small convolutions into a graph in the place of those with zeros."""

import sys
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import Sequential, common

from ..compiler.parting import round_up
from .graph import (
    bias_of,
    constant,
    is_depthwise,
    passes_channels,
    reader_behind,
    scale_of,
    scales_channels,
    weight_of,
)
from .group_norm import GroupNorm
from .ways import Bundle, Way

_RUN, _MOST_RUNS = 4, 64  # channels, the mean, from which runs are copied
_ALIGNED = 4  # what onnxruntime asks of the number of channels that its fast convolutions read
_tidy = Sequential(
    common.RemoveUnusedNodesPass(),
    common.TopologicalSortPass(),
    common.DeduplicateInitializersPass(size_limit=sys.maxsize),
    common.CommonSubexpressionEliminationPass(),
)


class Part(NamedTuple):
    """A tensor with some channels of a map. ids: ``[n]``, which ones; -1 for zeros or anything."""

    tensor: ir.Value
    ids: np.ndarray


def regroup(model: ir.Model, ways: dict[str, Way]) -> ir.Model:
    """The same network, its convolutions computed in the given ways.

    Channels in between are reordered as late as possible, and where the next convolution can take
    them as they come, never. Equal nodes and constants are one, those that nobody reads are gone.

    ways: by the name of the convolution's output; those that are not there stay as they are.
    """
    return _Regrouping(model, ways).model


class _Regrouping:
    # What a node computes is computed anew beside it, and read in its place where somebody needs
    # it in order. Nobody reads the node itself then.

    def __init__(self, model: ir.Model, ways: dict[str, Way]) -> None:
        self.model, self.ways = model.clone(), ways
        self.graph = self.model.graph
        self.tape = ir.tape.Tape(self.graph)
        self.maps: dict[ir.Value, list[Part]] = {}  # tensors whose channels are elsewhere
        self.total: dict[ir.Value, int] = {}
        self.done: set[ir.Node] = set()  # written already, together with the first of them
        for node in list(self.graph):
            self._rewrite(node)
        for output in list(self.graph.outputs):
            self._in_order(output)
        _tidy(self.model)

    def _rewrite(self, node: ir.Node) -> None:
        x, y = node.inputs[0] if node.inputs else None, node.outputs[0]
        weight = weight_of(node)
        if node in self.done:
            return
        if y.name in self.ways and weight is None:
            self._leave_out(node, self.ways[y.name])
        elif y.name in self.ways or (x in self.maps and weight is not None):
            whole = Way([Bundle(np.arange(len(weight)), np.arange(weight.shape[1]))])
            self._convolve(node, self.ways.get(y.name, whole))
        elif x in self.maps and (norm := GroupNorm.at(node)) is not None and self._fit(norm):
            self._normalise(norm)
        elif x in self.maps and passes_channels(node):
            self.total[y] = self.total[x]
            self.maps[y] = [self._passed_on(node, part) for part in self.maps[x]]
        else:
            for value in node.inputs:
                self._in_order(value)

    def _leave_out(self, node: ir.Node, way: Way) -> None:
        """Channels of a depthwise convolution that nobody reads, before it."""
        x, y = node.inputs[0], node.outputs[0]
        self.total[y] = len(constant(node.inputs[1]))
        part = self._take(x, way.bundles[0].reads, self.total[y], step=None)
        self.maps[y] = [self._passed_on(node, part)]

    def _convolve(self, node: ir.Node, way: Way) -> None:
        (y,) = node.outputs
        self.total[y] = len(weight_of(node))
        if way.native:
            self.maps[y] = [self._native(node, way)]
        else:
            self.maps[y] = [
                self._one(node, _whole_blocks(bundle.filters, self.total[y]), bundle.reads)
                for bundle in way.bundles
            ]

    def _one(self, node: ir.Node, filters: np.ndarray, reads: np.ndarray) -> Part:
        weight = weight_of(node)
        x = self._take(node.inputs[0], reads, weight.shape[1])
        weight = _rows(_rows(weight, filters).swapaxes(0, 1), x.ids)
        return self._conv(node, x.tensor, weight.swapaxes(0, 1), filters)

    def _native(self, node: ir.Node, way: Way) -> Part:
        weight, reads, filters = weight_of(node), *_equal(way)
        x, reads = self._in_groups(node.inputs[0], reads, weight.shape[1])
        filters = self._together_for_reader(node.outputs[0], filters)
        blocks = [
            _rows(_rows(weight, own).swapaxes(0, 1), read).swapaxes(0, 1)
            for own, read in zip(filters, reads, strict=True)
        ]
        return self._conv(node, x, np.concatenate(blocks), np.concatenate(filters), len(blocks))

    def _passed_on(self, node: ir.Node, part: Part) -> Part:
        if is_depthwise(node):
            weight = _rows(constant(node.inputs[1]), part.ids)
            return self._conv(node, part.tensor, weight, part.ids, len(weight))
        settings = node.inputs[1:]
        if scales_channels(node):
            scale, *zero = (_rows(constant(value), part.ids) for value in settings)
            scale[part.ids < 0] = 1
            settings = map(self._constant, (scale, *zero))
        inputs = [part.tensor, *settings]
        return Part(self.tape.op(node.op_type, inputs, node.attributes), part.ids)

    def _fit(self, norm: GroupNorm) -> bool:
        parts = self.maps[norm.apart.inputs[0]]
        return norm.fits(np.concatenate([part.ids for part in parts]))

    def _normalise(self, norm: GroupNorm) -> None:
        """Of the groups that are there."""
        x = self._join(self.maps[norm.apart.inputs[0]])
        groups = len(x.ids) // norm.size
        ones, zeros = (self._constant(f(groups, np.float32)) for f in (np.ones, np.zeros))
        sides = self._constant(np.array([0, groups, -1]))
        scale, shift = (_rows(constant(n.inputs[1]), x.ids) for n in (norm.scale, norm.shift))
        y = self.tape.op('Reshape', [x.tensor, sides])
        y = self.tape.op('InstanceNormalization', [y, ones, zeros], norm.norm.attributes)
        y = self.tape.op('Reshape', [y, self.tape.op('Shape', [x.tensor])])
        y = self.tape.op('Mul', [y, self._constant(scale)])
        self.maps[norm.y] = [Part(self.tape.op('Add', [y, self._constant(shift)]), x.ids)]
        self.total[norm.y] = norm.channels
        self.done.update(norm)

    def _conv(
        self, node: ir.Node, x: ir.Value, weight: np.ndarray, filters: np.ndarray, group: int = 1
    ) -> Part:
        bias = _rows(bias_of(node), filters)
        inputs = [x, self._weight(node, weight, filters), self._constant(bias)]
        return Part(self.tape.op('Conv', inputs, {**node.attributes, 'group': group}), filters)

    def _weight(self, node: ir.Node, weight: np.ndarray, filters: np.ndarray) -> ir.Value:
        """A weight, in integers where the node's own is."""
        scale = scale_of(node.inputs[1])
        if scale is None:
            return self._constant(weight)
        scale = _rows(np.broadcast_to(scale, (len(constant(node.inputs[1])), 1, 1, 1)), filters)
        scale[filters < 0] = 1
        whole = np.rint(weight / scale).astype(np.int8)
        inputs = [self._constant(whole), self._constant(scale.reshape(-1))]
        return self.tape.op('DequantizeLinear', inputs, dict(axis=0))

    def _take(
        self, value: ir.Value, wanted: np.ndarray, total: int, step: int | None = _ALIGNED
    ) -> Part:
        """A tensor with the `wanted` channels of a map, perhaps with others that cost nothing.

        step: what their number is a multiple of; None for whole blocks.
        """
        parts = self._parts(value, total)
        there = np.isin(wanted, np.concatenate([part.ids for part in parts]))
        wanted = wanted[there] if there.any() else wanted  # others are gone, as nobody needs them
        blocks = round_up(len(wanted))
        for part in parts:
            if round_up(len(part.ids)) == blocks and np.isin(wanted, part.ids).all():
                return part
        joined = self._join(parts)
        if round_up(len(joined.ids)) == blocks:
            return joined
        places = np.unique(_positions(joined.ids, total)[wanted])  # 0: those that are gone
        ids = _fill(joined.ids[places], round_up(len(places), step))
        return Part(self._gather(joined, _fill(places, len(ids), places[0])), ids)

    def _together_for_reader(self, value: ir.Value, filters: list[np.ndarray]) -> list[np.ndarray]:
        """Filters of each group, those together that go to the same group of the only reader."""
        reader = reader_behind(value)
        way = None if reader is None else self.ways.get(reader.outputs[0].name)
        if way is None or not way.native:
            return filters
        group = np.full(self.total[value] + 1, len(way.bundles))  # the last one is for -1
        for number, bundle in enumerate(way.bundles):
            group[bundle.reads] = number
        return [own[np.argsort(group[own], kind='stable')] for own in filters]

    def _in_groups(
        self, value: ir.Value, groups: list[np.ndarray], total: int
    ) -> tuple[ir.Value, list[np.ndarray]]:
        """A tensor with the channels of each group, and anything where they say -1; and in which
        order they are there."""
        joined = self._join(self._parts(value, total))
        wanted = np.concatenate(groups)
        if len(joined.ids) == len(wanted) and ((wanted == joined.ids) | (wanted < 0)).all():
            return joined.tensor, groups
        positions, places, ordered = _positions(joined.ids, total), [], []
        for own in groups:
            found = own[own >= 0]
            found = found[np.argsort(positions[found], kind='stable')]
            ordered.append(_fill(found, len(own)))
            # What fills a group up goes on where it ends, if the map does.
            more = positions[found[-1]] + 1 + np.arange(len(own) - len(found))
            places += [positions[found], np.minimum(more, len(joined.ids) - 1)]
        return self._gather(joined, np.concatenate(places)), ordered

    def _in_order(self, value: ir.Value | None) -> None:
        """Let all read a tensor with its channels in order, under the name that it has."""
        if value not in self.maps:
            return
        total = self.total[value]
        joined = self._join(self.maps.pop(value))
        new = joined.tensor
        if not np.array_equal(joined.ids, np.arange(total)):
            new = self._gather(joined, _positions(joined.ids, total))
        new.name, new.type, new.shape = value.name, value.type, value.shape
        value.replace_all_uses_with(new, replace_graph_outputs=True)

    def _parts(self, value: ir.Value, total: int) -> list[Part]:
        return self.maps.get(value) or [Part(value, np.arange(total))]

    def _join(self, parts: list[Part]) -> Part:
        if len(parts) == 1:
            return parts[0]
        tensor = self.tape.op('Concat', [part.tensor for part in parts], dict(axis=1))
        return Part(tensor, np.concatenate([part.ids for part in parts]))

    def _constant(self, array: np.ndarray) -> ir.Value:
        number = len(self.tape.initializers)
        return self.tape.initializer(ir.Tensor(array), f'groups_constant_{number}')

    def _gather(self, x: Part, places: np.ndarray) -> ir.Value:
        places = places.astype(np.int64)
        starts = np.flatnonzero(np.diff(places, prepend=places[0] - 2) != 1)
        if len(starts) > min(len(places) // _RUN, _MOST_RUNS):
            return self.tape.op('Gather', [x.tensor, self._constant(places)], dict(axis=1))
        # Runtimes gather single channels in the plain layout alone, and bring the map into it and
        # back; runs are copied in any.
        runs = np.split(places, starts[1:])
        axis = self._constant(np.array([1]))
        parts = []
        for run in runs:
            limits = [self._constant(np.array([at])) for at in (run[0], run[-1] + 1)]
            parts.append(self.tape.op('Slice', [x.tensor, *limits, axis]))
        return self.tape.op('Concat', parts, dict(axis=1))


def _equal(way: Way) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Channels and filters of each group, filled up with -1 to the same size."""
    filters, reads = zip(*way.bundles, strict=True)
    return tuple(
        [_fill(part, round_up(max(map(len, parts)))) for part in parts]
        for parts in (reads, filters)
    )


def _whole_blocks(filters: np.ndarray, total: int) -> np.ndarray:
    """Filters, filled up with -1: onnxruntime's fast depthwise convolutions have whole blocks."""
    all_there = len(filters) == total
    return filters if all_there else _fill(filters, round_up(len(filters)))


def _fill(ids: np.ndarray, size: int, value: int = -1) -> np.ndarray:
    return np.concatenate((ids, np.full(size - len(ids), value, ids.dtype)))


def _rows(array: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Rows of an array, zeros where `ids` says -1."""
    rows = array[ids]
    rows[ids < 0] = 0
    return rows


def _positions(ids: np.ndarray, total: int) -> np.ndarray:
    """Where each of `total` channels lies; 0 for those that are not there."""
    places = np.zeros(total, np.int64)
    places[ids[ids >= 0]] = (ids >= 0).nonzero()[0]
    return places
