"""Choosing, by trying them in the runtime, how a graph's convolutions are computed."""

import functools
import math
import time

import numpy as np
import onnx_ir as ir
from rich.progress import track

from ..compiler import fastest
from .graph import (
    bias_of,
    constant,
    passes_channels,
    quantiser_of,
    reader_behind,
    scale_of,
    weight_of,
)
from .regroup import regroup
from .runtime import Runtime, by_definition
from .shapes import sizes_of
from .ways import Way, ways_of

_ROUNDS = 4
_MOST_OFF = 1e-3  # OpenVINO computes some joined int8 convolutions wrongly


def choose_ways(
    model: ir.Model,
    image: np.ndarray,
    runtime: Runtime,
    quantised: ir.Model | None = None,
) -> dict[str, Way]:
    """The fastest way for each convolution with zeros in it, for :func:`regroup`.

    A convolution is timed alone, between neighbours as it has them, so that what reordering its
    channels costs is counted. image: as the graph takes it, for the sizes of maps and the number of
    boxes. quantised: the same graph with convolutions in integers, to be timed in its place; there
    zeros are also what was small.
    """
    timed = ir.convenience.create_value_mapping((quantised or model).graph)
    needed = needed_filters(model.graph)
    convs = [node for node in model.graph if weight_of(node) is not None]
    tensors = [value.name for node in convs for value in (node.inputs[0], node.outputs[0])]
    (sizes,) = sizes_of(model, tensors, [image])
    ways, same = {}, {}
    for node in convs:
        same.setdefault(_identity(node, needed[node.outputs[0]]), []).append(node)
    for (_, used, *_), nodes in track(same.items(), 'timing layers'):
        node = max(nodes, key=lambda n: np.prod(sizes[n.inputs[0].name]))  # of levels that share it
        tried = ways_of(weight_of(node), np.frombuffer(used, bool))
        if len(tried) > 1:
            best = _fastest(timed[node.outputs[0].name].producer(), tried, sizes, runtime)
            ways.update({n.outputs[0].name: best for n in nodes})
    for node in convs:  # dense ones, of which nobody reads some filters
        (y,) = node.outputs
        if y.name not in ways and not needed[y].all():
            ways[y.name] = ways_of(np.ones_like(weight_of(node)), needed[y])[0]
    return ways


def needed_filters(graph: ir.Graph) -> dict[ir.Value, np.ndarray]:
    """For the outputs of convolutions, ``[K]`` bool: the channels that are read further on."""
    needed: dict[ir.Value, np.ndarray | None] = {}

    def of(value: ir.Value) -> np.ndarray | None:  # None: all
        parts = [_reads(reader, value, needed) for reader in value.consumers()]
        if value.is_graph_output() or not parts or any(part is None for part in parts):
            return None
        return np.logical_or.reduce(parts)

    for node in reversed(graph):
        needed.update({value: of(value) for value in node.outputs})
        weight, y = weight_of(node), node.outputs[0]
        if weight is not None and needed[y] is None:
            needed[y] = np.ones(len(weight), bool)
        elif weight is not None and not needed[y].any():
            needed[y][0] = True  # an empty map is no map
    return needed


def _reads(node: ir.Node, value: ir.Value, needed: dict) -> np.ndarray | None:
    if value is not node.inputs[0] or value in node.inputs[1:]:
        return None
    weight = weight_of(node)
    if weight is not None:
        return weight[needed[node.outputs[0]]].any(axis=(0, 2, 3))
    return needed[node.outputs[0]] if passes_channels(node) else None


def _identity(node: ir.Node, needed: np.ndarray) -> tuple:
    return node.inputs[1], needed.tobytes(), repr(sorted(node.attributes.items()))


def _fastest(node: ir.Node, ways: list[Way], sizes: dict, runtime: Runtime) -> Way:
    model = _alone(node, sizes)
    rng = np.random.default_rng(0)
    inputs = {x.name: rng.standard_normal(x.shape.numpy(), np.float32) for x in model.graph.inputs}
    models = [regroup(model, {node.outputs[0].name: way}) for way in ways]
    seconds = race(models, inputs, runtime, _MOST_OFF)
    return ways[seconds.index(min(seconds))]


def race(
    models: list[ir.Model],
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


def _alone(node: ir.Node, sizes: dict[str, tuple[int, ...]]) -> ir.Model:
    """A convolution between others that cost little, in whose layout it gets and gives its maps.

    Where something else than a convolution reads it, it is added to a map. Where its input is
    quantised, the others compute in integers as well: what a map costs to reorder depends on it.
    What comes out is put in order, as it would have to be for most readers.
    """
    weight, (y,) = weight_of(node), node.outputs
    quantiser, scale = quantiser_of(node.inputs[0]), scale_of(node.inputs[1])
    before = node.inputs[0] if quantiser is None else quantiser.inputs[0]
    tape, inputs = ir.tape.Tape(), [ir.val('x', ir.DataType.FLOAT, sizes[before.name])]

    def hold(array: np.ndarray) -> ir.Value:
        return tape.initializer(ir.tensor(array), f'constant_{len(tape.initializers)}')

    def quantise(x: ir.Value) -> ir.Value:
        if quantiser is None:
            return x
        settings = [hold(constant(value)) for value in quantiser.inputs[1:]]
        whole = tape.op('QuantizeLinear', [x, *settings])
        return tape.op('DequantizeLinear', [whole, *settings])

    def weigh(weight: np.ndarray, scale: np.ndarray | float | None) -> ir.Value:
        if scale is None:
            return hold(weight)
        scales = np.broadcast_to(scale, (len(weight), 1, 1, 1)).ravel()
        whole = [hold(np.rint(weight / scale).astype(np.int8)), hold(scales)]
        return tape.op('DequantizeLinear', whole, dict(axis=0))

    def pass_on(x: ir.Value, channels: int) -> ir.Value:
        ones = np.ones((channels, 1, 1, 1), np.float32)
        held = weigh(ones, None if scale is None else np.float32(1 / 127))
        return tape.op('Conv', [quantise(x), held], dict(group=channels))

    x = quantise(pass_on(inputs[0], weight.shape[1]))
    constants = weigh(weight, scale), hold(bias_of(node))
    last = tape.op('Conv', [x, *constants], node.attributes, output=ir.val(y.name))
    reader = reader_behind(y)
    if reader is None or weight_of(reader) is None:
        inputs.append(ir.val('shortcut', ir.DataType.FLOAT, sizes[y.name]))
        last = tape.op('Add', [pass_on(inputs[1], len(weight)), last])
    after = pass_on(tape.op('Relu', [last]), len(weight))
    out = tape.op('ReduceMean', [after], dict(axes=[2, 3]), output=ir.val('out', ir.DataType.FLOAT))
    made = ir.Graph(
        inputs,
        [out],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports=node.graph.opset_imports,
        name='alone',
    )
    return ir.Model(made, ir_version=8)
