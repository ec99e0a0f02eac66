"""A traced graph in int8: calibrated on images, by NNCF; layers that cost accuracy stay float."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from rich.progress import track

from .graph import Graph
from .regroup import regroup
from .runtime import Runtime

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

    model: ModelProto
    change: float
    stay_float: dict[str, float]


def quantise(
    model: ModelProto, images: Sequence[np.ndarray], runtime: Runtime, limit: float = LIMIT
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
    layers = _layers_of(model, quantised)
    shares = {
        name: change - measure(_floating(model, quantised, nodes))
        for name, nodes in track(layers.items(), 'finding layers to stay float')
    }
    mixed = quantised
    for name in sorted((n for n in shares if shares[n] > 0), key=shares.get, reverse=True):
        blamed[name] = shares[name]
        mixed = _floating(model, quantised, [n for name in blamed for n in layers[name]])
        change = measure(mixed)
        if change <= limit:
            break
    return Quantised(mixed, change, blamed)


def _by_nncf(model: ModelProto, images: Sequence[np.ndarray]) -> ModelProto:
    try:
        import nncf
    except ModuleNotFoundError as error:
        message = "nncf not found, it comes with: pip install 'mmdet_groupconv[openvino]'"
        raise ImportError(message) from error
    nncf.set_log_level(logging.ERROR)
    calibration = nncf.Dataset(images, lambda image: {'images': image})
    return nncf.quantize(
        model,
        calibration,
        # No zero points: OpenVINO has no AMX convolutions for maps that have one, and computes them
        # in float32, and wrongly behind a gather.
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=_outside(model), validate=False),
        # It would correct the biases that levels share once for each level.
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
    )


def _outside(model: ModelProto) -> list[str]:
    """Names of the nodes that stay float: all that are not between layers."""
    graph = Graph(model.graph)
    layers = [node for node in graph.nodes if node.op_type in _LAYERS]
    below = _reach(layers, graph.behind, _CHOOSE_BOXES)
    above = _reach(layers, graph.maps_before, _CHOOSE_BOXES)
    inside = {id(node) for node in layers} | (below & above)
    # Images without a box of some size tell nothing of that level's features.
    enlarging = [node for node in graph.nodes if node.op_type in _STAY_FLOAT]
    rois = [node for node in enlarging if node.op_type == 'RoiAlign']
    inside -= {id(node) for node in enlarging} | _reach(rois, graph.behind, _LAYERS)
    return [node.name for node in graph.nodes if id(node) not in inside]


def _reach(
    start: Iterable[NodeProto],
    neighbours: Callable[[NodeProto], Iterable[NodeProto]],
    stop: Sequence[str] = (),
) -> set[int]:
    seen, left = set(), list(start)
    while left:
        for node in neighbours(left.pop()):
            if id(node) not in seen and node.op_type not in stop:
                seen.add(id(node))
                left.append(node)
    return seen


def _change(
    model: ModelProto, images: Sequence[np.ndarray], runtime: Runtime
) -> Callable[[ModelProto], float]:
    """How much another graph's predictions are off, relative to their variance.

    Predictions: of the last convolutions before boxes are chosen; levels that share one are one, as
    some of them may find nothing, and then hardly vary.
    """
    graph = Graph(model.graph)
    convs = [node for node in graph.nodes if node.op_type == 'Conv']
    of_boxes = _reach([n for n in graph.nodes if n.op_type in _BY_BOX], graph.behind)
    first = [node for node in convs if id(node) not in of_boxes]
    lead = _reach(first, graph.maps_before)
    predicting = [node for node in first if id(node) not in lead]
    outputs = [node.output[0] for node in predicting]
    layers = [graph.root(node.input[1]) for node in predicting]

    def predictions(model: ModelProto) -> list[np.ndarray]:
        found = defaultdict(list)
        for layer, of_images in zip(layers, _outputs(model, outputs, images, runtime), strict=True):
            found[layer] += [x.ravel() for x in of_images]
        return [np.concatenate(values) for values in found.values()]

    expected = predictions(model)

    def measure(other: ModelProto) -> float:
        pairs = zip(predictions(other), expected, strict=True)
        return float(np.mean([np.square(x - y).mean() / (y.var() or 1.0) for x, y in pairs]))

    return measure


def _outputs(
    model: ModelProto, names: list[str], images: Sequence[np.ndarray], runtime: Runtime
) -> list[list[np.ndarray]]:
    """Tensors of a graph for each image, by tensor."""
    asking = ModelProto()
    asking.CopyFrom(model)
    del asking.graph.output[:]
    asking.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    run, _ = runtime.open(asking)
    found = [run({'images': image}) for image in images]
    return [list(of_name) for of_name in zip(*found, strict=True)]


def _layers_of(model: ModelProto, quantised: ModelProto) -> dict[str, list[str]]:
    """The names of the nodes in integers, by layer: levels of a head share one."""
    graph, found = Graph(quantised.graph), defaultdict(list)
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type in _LAYERS}
    for node in graph.nodes:
        if node.name in weights and graph.scale(node.input[1]) is not None:
            found[_layer_name(weights[node.name])].append(node.name)
    return dict(found)


def _layer_name(weight: str) -> str:
    """Of the network, from that of a weight in the graph."""
    inside = weight.split('.')[1:] or [weight]  # the first is the exporter's
    return '.'.join(part for part in inside if part not in ('chain', 'units', 'unit', 'weight'))


def _floating(model: ModelProto, quantised: ModelProto, nodes: Iterable[str]) -> ModelProto:
    """The quantised graph with some layers as they were."""
    mixed, original, own = ModelProto(), Graph(model.graph), set(nodes)
    mixed.CopyFrom(quantised)
    graph = Graph(mixed.graph)
    weights = {node.name: node.input[1] for node in original.nodes if node.name in own}
    for node in graph.nodes:
        if node.name in own:
            quantiser = graph.quantiser(node.input[0])
            node.input[0] = node.input[0] if quantiser is None else quantiser.input[0]
            node.input[1] = f'{weights[node.name]}_as_it_was'
    mixed.graph.initializer.extend(
        numpy_helper.from_array(original.constant(name), f'{name}_as_it_was')
        for name in dict.fromkeys(weights.values())
    )
    return regroup(mixed, {})  # less what nobody reads any more
