"""How large maps are, found by running a graph."""

import numpy as np
from onnx import ModelProto, TensorProto, helper

from .runtime import session

# Odd, so that nothing is equal that rounds differently; maps of stride 128 differ, too.
_TRIALS = (1, 101, 261), (2, 167, 230), (3, 224, 195)


def sizes_of(
    model: ModelProto, tensors: list[str], images: list[np.ndarray]
) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of tensors of a graph, for each of several batches of images."""
    asking = ModelProto()
    asking.CopyFrom(model)
    del asking.graph.output[:]
    tensors = list(dict.fromkeys(tensors))
    for number, name in enumerate(tensors):
        size = f'size_of_{number}'
        asking.graph.node.append(helper.make_node('Shape', [name], [size]))
        asking.graph.output.append(helper.make_tensor_value_info(size, TensorProto.INT64, None))
    if not tensors:
        return [{} for _ in images]
    ready, (entry,) = session(asking, 0), model.graph.input
    found = []
    for batch in images:
        sizes = ready.run(None, {entry.name: batch})
        found.append({k: tuple(v.tolist()) for k, v in zip(tensors, sizes, strict=True)})
    return found


def takes_one_image(model: ModelProto) -> bool:
    """Whether a graph is for one image at a time."""
    (entry,) = model.graph.input
    return entry.type.tensor_type.shape.dim[0].dim_value == 1


def name_sizes(model: ModelProto) -> None:
    """Write down, in place, which maps that are added to each other have the same size.

    onnxruntime makes one of a convolution and the sum behind it only where it knows that; from a
    graph for images of any size it can't tell.
    """
    known = {output.name for output in model.graph.output} | {i.name for i in model.graph.input}
    sums = [node for node in model.graph.node if node.op_type == 'Add']
    tensors = [name for node in sums for name in (*node.input, *node.output)]
    constants = {tensor.name for tensor in model.graph.initializer}
    made = {name for node in model.graph.node for name in node.output} - known - constants
    one = takes_one_image(model)
    kind = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    images = [np.zeros((1 if one else batch, 3, *size), kind) for batch, *size in _TRIALS]
    trials = sizes_of(model, [name for name in tensors if name in made], images)
    names: dict[tuple, str] = {}
    for tensor in trials[0]:
        if len(trials[0][tensor]) != 4:  # of boxes, whose number goes by the image's content
            continue
        shape = []
        for sides in zip(*(trial[tensor] for trial in trials), strict=True):
            fixed = len(set(sides)) == 1
            shape.append(sides[0] if fixed else names.setdefault(sides, f'side_{len(names)}'))
        info = helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)
        model.graph.value_info.append(info)
