"""Choosing, by trying them in onnxruntime, how a graph's convolutions are computed."""

import time
from collections.abc import Callable

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from rich.progress import track

from .graph import Graph, attributes
from .regroup import regroup
from .ways import Way, ways_of

_ROUNDS = 4
_BEFORE, _AFTER = 'before', 'after'


def choose_ways(model: ModelProto, shape: tuple[int, int], threads: int) -> dict[str, Way]:
    """The fastest way for each convolution with zeros in it, for :func:`regroup`.

    A convolution is timed alone, between neighbours as it has them, so that what reordering its
    channels costs is counted. shape: height and width of the images.
    """
    graph = Graph(model.graph)
    needed, sizes = needed_filters(graph), _input_sizes(model, graph, shape)
    ways, found, same = {}, {}, {}
    for node in graph.nodes:
        weight, name = graph.weight(node), node.output[0]
        if weight is None:
            continue
        same.setdefault(_identity(node, needed[name]), []).append(node)
        found[name] = node
    for (_, used, *_), nodes in track(same.items(), 'timing layers'):
        node = max(nodes, key=lambda n: np.prod(sizes[n.output[0]]))  # of levels that share it
        tried = ways_of(graph.weight(node), np.frombuffer(used, bool))
        if len(tried) > 1:
            best = _fastest(graph, node, tried, sizes[node.output[0]], threads)
            ways.update({n.output[0]: best for n in nodes})
    for name in found:  # dense ones that can give their outputs in an order of choice
        reader = graph.reader_behind(name)
        if name not in ways and reader is not None and reader.output[0] in ways:
            ways[name] = ways_of(np.ones_like(graph.weight(found[name])), needed[name])[0]
    return ways


def needed_filters(graph: Graph) -> dict[str, np.ndarray]:
    """For the outputs of convolutions, ``[K]`` bool: the channels that are read further on."""
    needed: dict[str, np.ndarray | None] = {}

    def of(name: str) -> np.ndarray | None:  # None: all
        parts = [_reads(graph, reader, name, needed) for reader in graph.readers[name]]
        if name in graph.outputs or not parts or any(part is None for part in parts):
            return None
        return np.logical_or.reduce(parts)

    for node in reversed(graph.nodes):
        needed.update({name: of(name) for name in node.output})
        weight = graph.weight(node)
        if weight is not None and needed[node.output[0]] is None:
            needed[node.output[0]] = np.ones(len(weight), bool)
        elif weight is not None and not needed[node.output[0]].any():
            needed[node.output[0]][0] = True  # an empty map is no map
    return needed


def _reads(graph: Graph, node: NodeProto, name: str, needed: dict) -> np.ndarray | None:
    if name != node.input[0] or name in node.input[1:]:
        return None
    weight = graph.weight(node)
    if weight is not None:
        return weight[needed[node.output[0]]].any(axis=(0, 2, 3))
    if graph.passes_channels(node):
        return needed[node.output[0]]
    return None


def _identity(node: NodeProto, needed: np.ndarray) -> tuple:
    return node.input[1], needed.tobytes(), repr(sorted(attributes(node).items()))


def _input_sizes(model: ModelProto, graph: Graph, shape: tuple[int, int]) -> dict[str, tuple]:
    """The shape of what each convolution reads, by the name of its output, for one image."""
    asking = ModelProto()
    asking.CopyFrom(model)
    del asking.graph.output[:]
    names = {node.output[0]: node.input[0] for node in graph.nodes if graph.weight(node) is not None}
    for name, x in names.items():
        asking.graph.node.append(helper.make_node('Shape', [x], [f'{name}_size']))
        asking.graph.output.append(helper.make_tensor_value_info(f'{name}_size', TensorProto.INT64, None))
    (images,) = model.graph.input
    sizes = session(asking, 0).run(None, {images.name: np.zeros((1, 3, *shape), np.float32)})
    return {name: tuple(size.tolist()) for name, size in zip(names, sizes, strict=True)}


def session(model: ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """To run a model on the CPU. threads: 0 for as many as there are cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ['CPUExecutionProvider'])


def _fastest(graph: Graph, node: NodeProto, ways: list[Way], size: tuple, threads: int) -> Way:
    model = _alone(graph, node, size)
    runs = [_runner(regroup(model, {node.output[0]: way}), size, threads) for way in ways]
    best = [float('inf')] * len(ways)
    for _ in range(_ROUNDS):
        for number, run in enumerate(runs):
            start = time.perf_counter()
            run()
            best[number] = min(best[number], time.perf_counter() - start)
    return ways[best.index(min(best))]


def _runner(model: ModelProto, size: tuple, threads: int) -> Callable[[], object]:
    ready, rng = session(model, threads), np.random.default_rng(0)
    x = rng.standard_normal(size, np.float32)
    ready.run(None, {'images': x})
    return lambda: ready.run(None, {'images': x})


def _alone(graph: Graph, node: NodeProto, size: tuple) -> ModelProto:
    """A convolution between two that cost little, in whose layout it gets and gives its maps.

    Where others than convolutions read it, they get its channels in order, as a sum would.
    """
    weight, bias = graph.weight(node), graph.bias(node)
    name, one = node.output[0], np.ones((max(weight.shape[:2]), 1, 1, 1), np.float32)
    nodes = [
        helper.make_node('Conv', ['images', 'ones_in'], [_BEFORE], group=size[1]),
        helper.make_node('Conv', [_BEFORE, 'weight', 'bias'], [name], **attributes(node)),
    ]
    reader = graph.reader_behind(name)
    last = name
    if reader is None or graph.weight(reader) is None:
        nodes.append(helper.make_node('Add', [name, name], ['sum']))
        last = 'sum'
    nodes += [
        helper.make_node('Relu', [last], ['active']),
        helper.make_node('Conv', ['active', 'ones_out'], [_AFTER], group=len(weight)),
        helper.make_node('GlobalAveragePool', [_AFTER], ['out']),
    ]
    constants = dict(weight=weight, bias=bias, ones_in=one[: size[1]], ones_out=one[: len(weight)])
    floats = TensorProto.FLOAT
    made = helper.make_graph(
        nodes,
        'alone',
        [helper.make_tensor_value_info('images', floats, size)],
        [helper.make_tensor_value_info('out', floats, None)],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
