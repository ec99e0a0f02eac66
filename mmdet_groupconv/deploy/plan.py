"""Choosing, by trying them in the runtime, how a graph's convolutions are computed."""

import functools
import math
import time

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from rich.progress import track

from ..compiler import fastest
from .graph import Graph, attributes
from .regroup import regroup
from .runtime import Runtime, by_definition
from .shapes import sizes_of
from .ways import Way, ways_of

_ROUNDS = 4
_MOST_OFF = 1e-3  # OpenVINO computes some joined int8 convolutions wrongly


def choose_ways(
    model: ModelProto,
    image: np.ndarray,
    runtime: Runtime,
    quantised: ModelProto | None = None,
) -> dict[str, Way]:
    """The fastest way for each convolution with zeros in it, for :func:`regroup`.

    A convolution is timed alone, between neighbours as it has them, so that what reordering its
    channels costs is counted. image: as the graph takes it, for the sizes of maps and the number of
    boxes. quantised: the same graph with convolutions in integers, to be timed in its place; there
    zeros are also what was small.
    """
    graph = Graph(model.graph)
    timed = graph if quantised is None else Graph(quantised.graph)
    timed_node = {node.output[0]: node for node in timed.nodes if node.output}
    needed = needed_filters(graph)
    convs = [node for node in graph.nodes if graph.weight(node) is not None]
    tensors = [name for node in convs for name in (node.input[0], node.output[0])]
    (sizes,) = sizes_of(model, tensors, [image])
    ways, found, same = {}, {}, {}
    for node in convs:
        name = node.output[0]
        same.setdefault(_identity(node, needed[name]), []).append(node)
        found[name] = node
    for (_, used, *_), nodes in track(same.items(), 'timing layers'):
        node = max(nodes, key=lambda n: np.prod(sizes[n.input[0]]))  # of levels that share it
        tried = ways_of(graph.weight(node), np.frombuffer(used, bool))
        if len(tried) > 1:
            best = _fastest(timed, timed_node[node.output[0]], tried, sizes, runtime)
            ways.update({n.output[0]: best for n in nodes})
    for name, node in found.items():  # dense ones, of which nobody reads some filters
        if name not in ways and not needed[name].all():
            ways[name] = ways_of(np.ones_like(graph.weight(node)), needed[name])[0]
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


def _fastest(graph: Graph, node: NodeProto, ways: list[Way], sizes: dict, runtime: Runtime) -> Way:
    model = _alone(graph, node, sizes)
    rng = np.random.default_rng(0)
    inputs = {x.name: rng.standard_normal(_dims(x), np.float32) for x in model.graph.input}
    models = [regroup(model, {node.output[0]: way}) for way in ways]
    seconds = race(models, inputs, runtime, _MOST_OFF)
    return ways[seconds.index(min(seconds))]


def race(
    models: list[ModelProto],
    inputs: dict[str, np.ndarray],
    runtime: Runtime,
    most_off: float = math.inf,
) -> list[float]:
    """The seconds that each model takes, the best of some rounds in turn.

    most_off: from what the first one computes by definition, relative to its variance; those that
    are further off get no end of seconds.
    """
    runs = [runtime.open(model)[0] for model in models]
    near = [True] * len(runs)
    if most_off < math.inf:
        expected = by_definition(models[0], inputs)
        near = [_off(expected, run(inputs)) <= most_off for run in runs]
    calls = {number: functools.partial(run, inputs) for number, run in enumerate(runs)}
    # Other processes disturb the time on the CPU least, but it adds up over threads.
    clock = time.process_time if runtime.threads == 1 else time.perf_counter
    seconds = fastest.race(calls, 1 + _ROUNDS, clock)  # the first one is to get ready
    return [seconds[number] if near[number] else math.inf for number in calls]


def _off(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float(np.square(x - y).mean()) / (float(y.var()) or 1.0) for x, y in pairs)


def _dims(value: ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _alone(graph: Graph, node: NodeProto, sizes: dict[str, tuple[int, ...]]) -> ModelProto:
    """A convolution between others that cost little, in whose layout it gets and gives its maps.

    Where something else than a convolution reads it, it is added to a map. Where its input is
    quantised, the maps around it are.
    """
    weight, name = graph.weight(node), node.output[0]
    constants = dict(bias=graph.bias(node))
    quantiser, scale = graph.quantiser(node.input[0]), graph.scale(node.input[1])
    x = node.input[0] if quantiser is None else quantiser.input[0]
    values = [helper.make_tensor_value_info('x', TensorProto.FLOAT, sizes[x])]
    nodes: list[NodeProto] = []

    def pass_on(x: str, output: str, channels: int) -> None:
        constants[f'{output}_ones'] = np.ones((channels, 1, 1, 1), np.float32)
        nodes.append(helper.make_node('Conv', [x, f'{output}_ones'], [output], group=channels))

    def quantise(x: str) -> str:
        if quantiser is None:
            return x
        nodes.append(helper.make_node('QuantizeLinear', [x, 'scale', 'zero'], [f'{x}_whole']))
        inputs = [f'{x}_whole', 'scale', 'zero']
        nodes.append(helper.make_node('DequantizeLinear', inputs, [f'{x}_quantised']))
        return f'{x}_quantised'

    if quantiser is not None:
        names = zip(('scale', 'zero'), quantiser.input[1:], strict=True)
        constants.update({own: graph.constant(name) for own, name in names})
    if scale is None:
        constants['weight'] = weight
    else:
        whole = np.rint(weight / scale).astype(np.int8)
        constants.update(whole=whole, scales=np.broadcast_to(scale, (len(weight), 1, 1, 1)).ravel())
        nodes.append(helper.make_node('DequantizeLinear', ['whole', 'scales'], ['weight'], axis=0))
    pass_on('x', 'before', weight.shape[1])
    inputs = [quantise('before'), 'weight', 'bias']
    nodes.append(helper.make_node('Conv', inputs, [name], **attributes(node)))
    reader, last = graph.reader_behind(name), name
    if reader is None or graph.weight(reader) is None:
        last = 'sum'
        values.append(helper.make_tensor_value_info('shortcut', TensorProto.FLOAT, sizes[name]))
        pass_on('shortcut', 'beside', len(weight))
        nodes.append(helper.make_node('Add', ['beside', name], [last]))
    nodes.append(helper.make_node('Relu', [last], ['active']))
    pass_on(quantise('active'), 'after', len(weight))
    nodes.append(helper.make_node('GlobalAveragePool', ['after'], ['out']))
    made = helper.make_graph(
        nodes,
        'alone',
        values,
        [helper.make_tensor_value_info('out', TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
