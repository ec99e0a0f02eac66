"""Putting small convolutions into a graph in the place of those with zeros."""

from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto

from .graph import Graph, Writer, attributes
from .ways import Bundle, Way, round_up

_RUN, _MOST_RUNS = 4, 64  # channels, the mean, from which runs are copied
_ALIGNED = 4  # what onnxruntime asks of the number of channels that its fast convolutions read


class Part(NamedTuple):
    """A tensor with some channels of a map. ids: ``[n]``, which ones; -1 for zeros or anything."""

    tensor: str
    ids: np.ndarray


def regroup(model: ModelProto, ways: dict[str, Way]) -> ModelProto:
    """The same network, its convolutions computed in the given ways.

    Channels in between are reordered as late as possible, and where the next convolution can take
    them as they come, never.

    ways: by the name of the convolution's output; those that are not there stay as they are.
    """
    return _Regrouping(model, ways).model


class _Regrouping:
    def __init__(self, model: ModelProto, ways: dict[str, Way]) -> None:
        self.graph, self.ways, self.writer = Graph(model.graph), ways, Writer()
        self.maps: dict[str, list[Part]] = {}  # tensors whose channels are elsewhere
        self.total: dict[str, int] = {}
        for node in self.graph.nodes:
            self._rewrite(node)
        for name in self.graph.outputs:
            self._in_order(name)
        self.model = self.writer.finish(model)

    def _rewrite(self, node: NodeProto) -> None:
        x, name = (node.input[0] if node.input else ''), node.output[0]
        weight = self.graph.weight(node)
        if name in self.ways or (x in self.maps and weight is not None):
            whole = Way([Bundle(np.arange(len(weight)), np.arange(weight.shape[1]))])
            self._convolve(node, self.ways.get(name, whole))
        elif x in self.maps and self.graph.looks_at_values(node):
            attrs, rest = attributes(node), list(node.input[1:])
            self.total[name] = self.total[x]
            self.maps[name] = [
                Part(self.writer.node(node.op_type, [part.tensor, *rest], **attrs), part.ids)
                for part in self.maps[x]
            ]
        elif x in self.maps and self.graph.is_depthwise(node):
            self.total[name] = self.total[x]
            self.maps[name] = [self._depthwise(node, part) for part in self.maps[x]]
        else:
            for tensor in node.input:
                self._in_order(tensor)
            self.writer.nodes.append(node)

    def _convolve(self, node: NodeProto, way: Way) -> None:
        name = node.output[0]
        self.total[name] = len(self.graph.weight(node))
        if way.native:
            self.maps[name] = [self._native(node, way)]
        elif len(way.bundles) == 1:
            self.maps[name] = [self._one(node, *way.bundles[0])]
        else:
            self.maps[name] = [
                self._one(node, _fill(bundle.filters, round_up(len(bundle.filters))), bundle.reads)
                for bundle in way.bundles
            ]

    def _one(self, node: NodeProto, filters: np.ndarray, reads: np.ndarray) -> Part:
        x = self._take(node.input[0], reads, self.graph.weight(node).shape[1])
        weight = _rows(_rows(self.graph.weight(node), filters).swapaxes(0, 1), x.ids)
        return self._conv(node, x.tensor, weight.swapaxes(0, 1), filters)

    def _native(self, node: NodeProto, way: Way) -> Part:
        weight, reads, filters = self.graph.weight(node), *_equal(way)
        x, reads = self._in_groups(node.input[0], reads, weight.shape[1])
        filters = self._together_for_reader(node.output[0], filters)
        blocks = [
            _rows(_rows(weight, own).swapaxes(0, 1), read).swapaxes(0, 1)
            for own, read in zip(filters, reads, strict=True)
        ]
        return self._conv(node, x, np.concatenate(blocks), np.concatenate(filters), len(blocks))

    def _depthwise(self, node: NodeProto, part: Part) -> Part:
        weight = _rows(self.graph.constant(node.input[1]), part.ids)
        return self._conv(node, part.tensor, weight, part.ids, len(weight))

    def _conv(
        self, node: NodeProto, x: str, weight: np.ndarray, filters: np.ndarray, group: int = 1
    ) -> Part:
        bias = _rows(self.graph.bias(node), filters)
        inputs = [x, self._weight(node, weight, filters), self.writer.constant(bias)]
        attrs = dict(attributes(node), group=group)
        return Part(self.writer.node('Conv', inputs, **attrs), filters)

    def _weight(self, node: NodeProto, weight: np.ndarray, filters: np.ndarray) -> str:
        """The name of a weight, in integers where the node's own is."""
        scale = self.graph.scale(node.input[1])
        if scale is None:
            return self.writer.constant(weight)
        scale = _rows(
            np.broadcast_to(scale, (len(self.graph.constant(node.input[1])), 1, 1, 1)), filters
        )
        scale[filters < 0] = 1
        whole = np.rint(weight / scale).astype(np.int8)
        inputs = [self.writer.constant(whole), self.writer.constant(scale.reshape(-1))]
        return self.writer.node('DequantizeLinear', inputs, axis=0)

    def _take(self, name: str, wanted: np.ndarray, total: int) -> Part:
        """A tensor with the `wanted` channels of a map, perhaps with others that cost nothing."""
        blocks, parts = round_up(len(wanted)), self.maps.get(name)
        if parts is None:
            parts = [Part(name, np.arange(total))]
        for part in parts:
            if round_up(len(part.ids)) == blocks and np.isin(wanted, part.ids).all():
                return part
        joined = self._join(parts)
        if round_up(len(joined.ids)) == blocks:
            return joined
        places = np.unique(_positions(joined.ids, total)[wanted])  # 0: those that are gone
        ids = _fill(joined.ids[places], round_up(len(places), _ALIGNED))
        return Part(self._gather(joined, _fill(places, len(ids), places[0])), ids)

    def _together_for_reader(self, name: str, filters: list[np.ndarray]) -> list[np.ndarray]:
        """Filters of each group, those together that go to the same group of the only reader."""
        reader = self.graph.reader_behind(name)
        way = None if reader is None else self.ways.get(reader.output[0])
        if way is None or not way.native:
            return filters
        group = np.full(self.total[name] + 1, len(way.bundles))  # the last one is for -1
        for number, bundle in enumerate(way.bundles):
            group[bundle.reads] = number
        return [own[np.argsort(group[own], kind='stable')] for own in filters]

    def _in_groups(
        self, name: str, groups: list[np.ndarray], total: int
    ) -> tuple[str, list[np.ndarray]]:
        """A tensor with the channels of each group, and anything where they say -1; and in which
        order they are there."""
        joined = self._join(self.maps.get(name) or [Part(name, np.arange(total))])
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

    def _in_order(self, name: str) -> None:
        """Compute a tensor under its own name, as the nodes that stay read it."""
        if name not in self.maps:
            return
        total = self.total[name]
        joined = self._join(self.maps.pop(name))
        if not np.array_equal(joined.ids, np.arange(total)):
            self._gather(joined, _positions(joined.ids, total), output=name)
        elif name in self.graph.outputs:
            self.writer.node('Identity', [joined.tensor], name)
        else:
            self.writer.alias(name, joined.tensor)

    def _join(self, parts: list[Part]) -> Part:
        if len(parts) == 1:
            return parts[0]
        tensor = self.writer.node('Concat', [part.tensor for part in parts], axis=1)
        return Part(tensor, np.concatenate([part.ids for part in parts]))

    def _gather(self, x: Part, places: np.ndarray, output: str | None = None) -> str:
        places = places.astype(np.int64)
        starts = np.flatnonzero(np.diff(places, prepend=places[0] - 2) != 1)
        if len(starts) > min(len(places) // _RUN, _MOST_RUNS):
            return self.writer.node(
                'Gather', [x.tensor, self.writer.constant(places)], output, axis=1
            )
        # Runtimes gather single channels in the plain layout alone, and bring the map into it and
        # back; runs are copied in any.
        runs = np.split(places, starts[1:])
        axis = self.writer.constant(np.array([1]))
        parts = []
        for run in runs:
            limits = [self.writer.constant(np.array([at])) for at in (run[0], run[-1] + 1)]
            parts.append(self.writer.node('Slice', [x.tensor, *limits, axis]))
        return self.writer.node('Concat', parts, output, axis=1)


def _equal(way: Way) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Channels and filters of each group, filled up with -1 to the same size."""
    filters, reads = zip(*way.bundles, strict=True)
    return tuple(
        [_fill(part, round_up(max(map(len, parts)))) for part in parts]
        for parts in (reads, filters)
    )


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
