"""A traced graph in int8: calibrated on images, by NNCF; layers that cost accuracy stay float."""

import heapq
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from rich.progress import track

from .graph import constant, quantiser_of, read, scale_of
from .runtime import Runtime
from .shapes import up_to

LIMIT = 0.004
_LAYERS = 'Conv', 'Gemm', 'MatMul'
_STAY_FLOAT = 'Resize', 'RoiAlign'  # OpenVINO loses accuracy where int8 maps are enlarged
_CHOOSE_BOXES = 'NonMaxSuppression', 'TopK'
_BY_BOX = *_CHOOSE_BOXES, 'RoiAlign'
_MEASURED_ON = 4


class Quantised(NamedTuple):
    """A graph with pairs of QuantizeLinear and DequantizeLinear.

    change: of its predictions, relative to their variance, the mean over outputs. stay_float: by
    name, layers that cost too much accuracy, and how much of the change is each one's own.
    """

    model: ir.Model
    change: float
    stay_float: dict[str, float]


def quantise(
    model: ir.Model, images: Sequence[np.ndarray], runtime: Runtime, limit: float = LIMIT
) -> Quantised:
    """The graph in int8.

    Weights get a scale a filter, maps one each, all without a zero point. What comes before the
    first layer and behind the last one, pixels and boxes, stays float. Where predictions change by
    more than `limit` the layers to blame stay float, too.

    model: without groups yet; equal weights may be shared. images: as the graph takes them, to
    calibrate on, the more the better up to some hundred. runtime: changes are measured in it, which
    adds some of its own.

    Raises ImportError where NNCF is not installed.
    """
    quantised = _by_nncf(model, images)
    measure = _change(model, images[:_MEASURED_ON], runtime)
    change, blamed = measure(quantised), {}
    if change <= limit:
        return Quantised(quantised, change, blamed)
    layers, whole, mixed = _layers_of(model, quantised), change, quantised

    def floating(names: Iterable[str]) -> ir.Model:
        return _floating(model, quantised, [node for name in names for node in layers[name]])

    def share(names: Sequence[str]) -> float:
        return whole - measure(floating(names))

    for name, own in track(largest_first(list(layers), share), 'finding layers to stay float'):
        blamed[name] = own
        mixed = floating(blamed)
        change = measure(mixed)
        if change <= limit:
            break
    return Quantised(mixed, change, blamed)


def largest_first(
    names: Sequence[str], share: Callable[[Sequence[str]], float]
) -> Iterator[tuple[str, float]]:
    """Names with their shares, about the largest first, as long as these are above 0.

    The half with the larger share is looked into first: few names with most of it are found in far
    fewer calls than there are names.

    share: of some names together.
    """
    parts, numbers = [(-share(names), 0, names)], itertools.count(1)
    while parts:
        own, _, part = heapq.heappop(parts)
        if own >= 0:
            return
        if len(part) == 1:
            yield part[0], -own
            continue
        middle = len(part) // 2
        for half in (part[:middle], part[middle:]):
            heapq.heappush(parts, (-share(half), next(numbers), half))


def _by_nncf(model: ir.Model, images: Sequence[np.ndarray]) -> ir.Model:
    try:
        import nncf
    except ModuleNotFoundError as error:
        message = "nncf not found, it comes with: pip install 'mmdet_groupconv[openvino]'"
        raise ImportError(message) from error
    nncf.set_log_level(logging.ERROR)
    calibration = nncf.Dataset(images, lambda image: {'images': image})
    quantised = nncf.quantize(
        ir.to_proto(model),
        calibration,
        # No zero points: OpenVINO has no AMX convolutions for maps that have one, and computes them
        # in float32, and wrongly behind a gather.
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=_outside(model), validate=False),
        # It would correct the biases that levels share once for each level.
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
    )
    return read(quantised)


def _outside(model: ir.Model) -> list[str]:
    """Names of the nodes that stay float: all that are not between layers."""
    layers = [node for node in model.graph if node.op_type in _LAYERS]
    below = _reach(layers, ir.Node.successors, _CHOOSE_BOXES)
    above = _reach(layers, _maps_before, _CHOOSE_BOXES)
    inside = {*layers} | (below & above)
    # Images without a box of some size tell nothing of that level's features.
    enlarging = [node for node in model.graph if node.op_type in _STAY_FLOAT]
    rois = [node for node in enlarging if node.op_type == 'RoiAlign']
    inside -= {*enlarging} | _reach(rois, ir.Node.successors, _LAYERS)
    return [node.name for node in model.graph if node not in inside]


def _maps_before(node: ir.Node) -> list[ir.Node]:
    """The nodes that make what a node reads; of an RoIAlign its map alone."""
    values = node.inputs[:1] if node.op_type == 'RoiAlign' else node.inputs
    return [value.producer() for value in values if value is not None and value.producer()]


def _reach(
    start: Iterable[ir.Node],
    neighbours: Callable[[ir.Node], Iterable[ir.Node]],
    stop: Sequence[str] = (),
) -> set[ir.Node]:
    seen, left = set(), list(start)
    while left:
        for node in neighbours(left.pop()):
            if node not in seen and node.op_type not in stop:
                seen.add(node)
                left.append(node)
    return seen


def _change(
    model: ir.Model, images: Sequence[np.ndarray], runtime: Runtime
) -> Callable[[ir.Model], float]:
    """How much another graph's predictions are off, relative to their variance.

    Predictions: of the last convolutions before boxes are chosen; levels that share one are one, as
    some of them may find nothing, and then hardly vary.
    """
    convs = [node for node in model.graph if node.op_type == 'Conv']
    of_boxes = _reach([n for n in model.graph if n.op_type in _BY_BOX], ir.Node.successors)
    first = [node for node in convs if node not in of_boxes]
    lead = _reach(first, _maps_before)
    predicting = [node for node in first if node not in lead]
    outputs = [node.outputs[0].name for node in predicting]
    layers = [node.inputs[1] for node in predicting]

    def predictions(model: ir.Model) -> list[np.ndarray]:
        found = defaultdict(list)
        for layer, of_images in zip(layers, _outputs(model, outputs, images, runtime), strict=True):
            found[layer] += [x.ravel() for x in of_images]
        return [np.concatenate(values) for values in found.values()]

    expected = predictions(model)

    def measure(other: ir.Model) -> float:
        pairs = zip(predictions(other), expected, strict=True)
        return float(np.mean([np.square(x - y).mean() / (y.var() or 1.0) for x, y in pairs]))

    return measure


def _outputs(
    model: ir.Model, names: list[str], images: Sequence[np.ndarray], runtime: Runtime
) -> list[list[np.ndarray]]:
    """Tensors of a graph for each image, by tensor."""
    run, _ = runtime.open(up_to(model, names))
    found = [run({'images': image}) for image in images]
    return [list(of_name) for of_name in zip(*found, strict=True)]


def _layers_of(model: ir.Model, quantised: ir.Model) -> dict[str, list[str]]:
    """The names of the nodes in integers, by layer: levels of a head share one."""
    found = defaultdict(list)
    weights = {n.name: n.inputs[1].name for n in model.graph if n.op_type in _LAYERS}
    for node in quantised.graph:
        if node.name in weights and scale_of(node.inputs[1]) is not None:
            found[_layer_name(weights[node.name])].append(node.name)
    return dict(found)


def _layer_name(weight: str) -> str:
    """Of the network, from that of a weight in the graph."""
    inside = weight.split('.')[1:] or [weight]  # the first is the exporter's
    return '.'.join(part for part in inside if part not in ('chain', 'units', 'unit', 'weight'))


def _floating(model: ir.Model, quantised: ir.Model, nodes: Iterable[str]) -> ir.Model:
    """The quantised graph with some layers as they were."""
    mixed, own = quantised.clone(), set(nodes)
    tape = ir.tape.Tape(mixed.graph)
    original = {node.name: node.inputs[1] for node in model.graph if node.name in own}
    weights = {
        value: tape.initializer(ir.Tensor(constant(value)), f'{value.name}_as_it_was')
        for value in dict.fromkeys(original.values())
    }
    for node in mixed.graph:
        if node.name in own:
            quantiser = quantiser_of(node.inputs[0])
            if quantiser is not None:
                node.replace_input_with(0, quantiser.inputs[0])
            node.replace_input_with(1, weights[original[node.name]])
    RemoveUnusedNodesPass()(mixed)
    return mixed
