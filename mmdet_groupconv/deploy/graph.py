"""Constants of ONNX graphs, and what nodes do with channels."""

import numpy as np
import onnx_ir as ir
from onnx import ModelProto

POOLS = 'MaxPool', 'AveragePool', 'GlobalAveragePool'
_SCALING = 'QuantizeLinear', 'DequantizeLinear'
_ELEMENTWISE = 'Relu', 'LeakyRelu', 'Clip', 'Sigmoid', 'HardSwish'


def read(proto: ModelProto) -> ir.Model:
    """A model whose constants are arrays, each one initializer where equal layers share it."""
    model = ir.from_proto(proto)
    for value in model.graph.initializers.values():  # a TensorProto would be copied at each look
        value.const_value = ir.Tensor(value.const_value.numpy())
    for node in model.graph:  # onnx_ir's own pass loses names of outputs that are the same
        if node.op_type == 'Identity' and node.inputs[0].is_initializer():
            node.outputs[0].replace_all_uses_with(node.inputs[0])
            model.graph.remove(node, safe=True)
    return model


def constant(value: ir.Value) -> np.ndarray | None:
    """What a constant holds, as floats; None for what is computed.

    A constant may be an initializer, or one in integers with the node that makes floats of it, or
    what a Constant gives.
    """
    if _is(value.producer(), 'Constant'):
        return ir.convenience.get_const_tensor(value).numpy()
    if value.const_value is None and (scale := scale_of(value)) is not None:
        whole = value.producer().inputs[0].const_value.numpy()
        value.const_value = ir.Tensor((whole * scale).astype(np.float32))
    return None if value.const_value is None else value.const_value.numpy()


def scale_of(value: ir.Value) -> np.ndarray | None:
    """Of a constant in integers whose zero is 0, to be multiplied with them; else None."""
    node = value.producer()
    if not _is(node, 'DequantizeLinear') or not all(x.is_initializer() for x in node.inputs):
        return None
    whole, scale, *zero = (x.const_value.numpy() for x in node.inputs)
    if any(x.any() for x in zero):
        return None
    sides = [1] * whole.ndim
    if scale.ndim:
        sides[node.attributes.get_int('axis', 1)] = -1
    return scale.reshape(sides)


def quantiser_of(value: ir.Value) -> ir.Node | None:
    """Of a map that was made whole numbers, and floats again: what made whole numbers of it."""
    node = value.producer()
    before = node.inputs[0].producer() if _is(node, 'DequantizeLinear') else None
    return before if _is(before, 'QuantizeLinear') else None


def weight_of(node: ir.Node) -> np.ndarray | None:
    """``[K, C, kh, kw]`` of a convolution that reads every channel; None for other nodes.

    Nor for weights that are computed.
    """
    weight = _filters_of(node)
    return weight if weight is not None and weight.ndim == 4 and _groups_of(node) == 1 else None


def bias_of(node: ir.Node) -> np.ndarray:
    """``[K]`` of a convolution, zeros where it has none."""
    weight, *bias = map(constant, node.inputs[1:])
    return bias[0] if bias else np.zeros(len(weight), weight.dtype)


def is_depthwise(node: ir.Node) -> bool:
    """Whether a node is a convolution with a filter a channel, and constant weights."""
    weight = _filters_of(node)
    return weight is not None and weight.shape[1] == 1 and len(weight) == _groups_of(node) > 1


def passes_channels(node: ir.Node) -> bool:
    """Whether each channel of the output is made from the same one of the first input."""
    pools = node.op_type in POOLS and len(node.outputs) == 1  # not where the maxima were
    return looks_at_values(node) or scales_channels(node) or is_depthwise(node) or pools


def looks_at_values(node: ir.Node) -> bool:
    """Whether a node does the same with each value of its first input, whichever channel."""
    if node.op_type in _SCALING:
        scale = constant(node.inputs[1])
        return scale is not None and scale.size == 1
    return node.op_type in _ELEMENTWISE


def scales_channels(node: ir.Node) -> bool:
    """Whether a node makes whole numbers of a map, or floats again, by a scale a channel."""
    if node.op_type not in _SCALING or node.attributes.get_int('axis', 1) != 1:
        return False
    scale, *zero = map(constant, node.inputs[1:])
    return scale is not None and scale.size > 1 and all(x is not None for x in zero)


def reader_behind(value: ir.Value) -> ir.Node | None:
    """The only reader of a tensor, behind those that pass channels on, or None."""
    while not value.is_graph_output() and len(value.uses()) == 1:
        (reader,) = value.consumers()
        if not passes_channels(reader):
            return reader
        value = reader.outputs[0]
    return None


def _filters_of(node: ir.Node) -> np.ndarray | None:
    """The weight of a convolution whose weight and bias are constants."""
    if node.op_type != 'Conv' or any(constant(value) is None for value in node.inputs[1:]):
        return None
    return constant(node.inputs[1])


def _groups_of(node: ir.Node) -> int:
    return node.attributes.get_int('group', 1)


def _is(node: ir.Node | None, kind: str) -> bool:
    return node is not None and node.op_type == kind
