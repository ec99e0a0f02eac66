"""Choosing, by trying them in the runtime, how a graph's convolutions are computed."""

import functools
import math
import time
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from rich.progress import track

from ..compiler import fastest
from .alone import BEFORE, alone
from .graph import weight_of
from .needed import Source, in_blocks, needed_filters
from .regroup import regroup
from .runtime import Runtime, by_definition
from .shapes import sizes_of
from .ways import Bundle, Way, ways_of

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
    channels costs is counted; a depthwise one before it may leave out channels that nobody reads,
    and gets a way as well then. image: as the graph takes it, for the sizes of maps and the number
    of boxes. quantised: the same graph with convolutions in integers, to be timed in its place;
    there zeros are also what was small.
    """
    timed = ir.convenience.create_value_mapping((quantised or model).graph)
    found = needed_filters(model.graph).items()
    needed = {value: in_blocks(some) for value, some in found if some is not None}
    convs = [node for node in model.graph if weight_of(node) is not None]
    sources = {node: Source.of(node.inputs[0]) for node in convs}
    around = [*convs, *(s.depthwise for s in sources.values() if s.depthwise is not None)]
    tensors = [value.name for node in around for value in (node.inputs[0], node.outputs[0])]
    (sizes,) = sizes_of(model, tensors, [image])
    ways, same = {}, {}

    def twin(node: ir.Node | None) -> ir.Node | None:
        return node and timed[node.outputs[0].name].producer()

    for node in convs:
        same.setdefault(_identity(node, sources[node], needed), []).append(node)
    for nodes in track(same.values(), 'timing layers'):
        node = max(nodes, key=lambda n: np.prod(sizes[n.inputs[0].name]))  # of levels that share it
        tried = _options(node, sources[node], needed)
        if len(tried) > 1:
            pair = twin(node), twin(sources[node].depthwise)
            best = _fastest(*pair, tried, sizes, runtime)
            for n in nodes:
                ways[n.outputs[0].name] = best.way
                if best.before is not None and sources[n].depthwise is not None:
                    ways[sources[n].depthwise.outputs[0].name] = best.before
    for node in convs:  # dense ones, of which nobody reads some filters
        (y,) = node.outputs
        if y.name not in ways and not needed[y].all():
            ways[y.name] = ways_of(np.ones_like(weight_of(node)), needed[y])[0]
    return ways


class _Option(NamedTuple):
    """way: of a convolution. before: of the one that gives its input, where some of its channels
    are left out."""

    way: Way
    before: Way | None = None


def _options(node: ir.Node, source: Source, needed: dict[ir.Value, np.ndarray]) -> list[_Option]:
    ways = ways_of(weight_of(node), needed[node.outputs[0]])
    read = needed.get(source.of_channels)
    if read is None or read.all() or not (source.drops or source.depthwise):
        return [_Option(way) for way in ways]
    ids = read.nonzero()[0]
    left = Way([Bundle(ids, ids)])
    return [
        _Option(way, part) for part in ([left] if source.drops else [None, left]) for way in ways
    ]


def _identity(node: ir.Node, source: Source, needed: dict[ir.Value, np.ndarray]) -> tuple:
    nodes = [node, source.depthwise] if source.depthwise else [node]
    used = [needed.get(value) for value in (node.outputs[0], source.of_channels)]
    return (
        *(n.inputs[1] for n in nodes),
        *(None if some is None else some.tobytes() for some in used),
        repr([sorted(n.attributes.items()) for n in nodes]),
    )


def _fastest(
    node: ir.Node, depthwise: ir.Node | None, options: list[_Option], sizes: dict, runtime: Runtime
) -> _Option:
    model = alone(node, sizes, depthwise)
    rng = np.random.default_rng(0)
    inputs = {x.name: rng.standard_normal(x.shape.numpy(), np.float32) for x in model.graph.inputs}
    models = []
    for option in options:
        before = {} if option.before is None else {BEFORE: option.before}
        models.append(regroup(model, {node.outputs[0].name: option.way, **before}))
    seconds = race(models, inputs, runtime, _MOST_OFF)
    return options[seconds.index(min(seconds))]


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
