"""How large maps are, found by running a graph."""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, TensorProto
from onnx.helper import make_node, make_tensor_value_info

from .runtime import session

# Odd, so that nothing is equal that rounds differently; maps of stride 128 differ, too.
_TRIALS = (1, 101, 261), (2, 167, 230), (3, 224, 195)


def sizes_of(
    model: ir.Model, tensors: list[str], images: list[np.ndarray]
) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of tensors of a graph, for each of several batches of images."""
    tensors = list(dict.fromkeys(tensors))
    if not tensors:
        return [{} for _ in images]
    names = [f'size_of_{number}' for number in range(len(tensors))]
    asking = up_to(model, names, TensorProto.INT64)
    asking.graph.node.extend(
        make_node('Shape', [tensor], [name]) for tensor, name in zip(tensors, names, strict=True)
    )
    ready, (entry,) = session(asking, optimised=False), model.graph.inputs
    found = []
    for batch in images:
        sizes = ready.run(None, {entry.name: batch})
        found.append({k: tuple(v.tolist()) for k, v in zip(tensors, sizes, strict=True)})
    return found


def up_to(model: ir.Model, tensors: Iterable[str], kind: int = TensorProto.FLOAT) -> ModelProto:
    """The same graph with other outputs, tensors of a kind."""
    asking = ir.to_proto(model)
    del asking.graph.output[:]
    asking.graph.output.extend(make_tensor_value_info(name, kind, None) for name in tensors)
    return asking


def takes_one_image(model: ir.Model) -> bool:
    """Whether a graph is for one image at a time."""
    (entry,) = model.graph.inputs
    return entry.shape[0] == 1


def name_sizes(model: ir.Model) -> None:
    """Write down, in place, which maps that are added to each other have the same size.

    onnxruntime makes one of a convolution and the sum behind it only where it knows that; from a
    graph for images of any size it can't tell.
    """
    sums = [node for node in model.graph if node.op_type == 'Add']
    around = [value for node in sums for value in (*node.inputs, *node.outputs)]
    made = {v.name: v for v in around if v.producer() is not None and not v.is_graph_output()}
    one, kind = takes_one_image(model), model.graph.inputs[0].dtype.numpy()
    images = [np.zeros((1 if one else batch, 3, *size), kind) for batch, *size in _TRIALS]
    trials = sizes_of(model, list(made), images)
    names: dict[tuple, str] = {}
    for name, value in made.items():
        if len(trials[0][name]) != 4:  # of boxes, whose number goes by the image's content
            continue
        shape = []
        for sides in zip(*(trial[name] for trial in trials), strict=True):
            fixed = len(set(sides)) == 1
            shape.append(sides[0] if fixed else names.setdefault(sides, f'side_{len(names)}'))
        value.shape, value.dtype = ir.Shape(shape), ir.DataType.FLOAT
