"""A convolution alone, between neighbours as it has them, to be timed."""

import numpy as np
import onnx_ir as ir

from .graph import (
    POOLS,
    bias_of,
    constant,
    looks_at_values,
    quantiser_of,
    reader_behind,
    scale_of,
    weight_of,
)

BEFORE = 'before'
_BLOCKED = 'Conv', 'Resize', *POOLS


def alone(
    node: ir.Node, sizes: dict[str, tuple[int, ...]], depthwise: ir.Node | None = None
) -> ir.Model:
    """A convolution between others that cost little, in whose layout it gets and gives its maps.

    Where something else than a convolution reads it, it is added to a map. Where its input is
    quantised, the others compute in integers as well: what a map costs to reorder depends on it.
    What comes out is put in order, as it would have to be for most readers.

    The convolution that gives its input has the output `BEFORE`. sizes: of tensors, by name.
    depthwise: one that does so in the graph.
    """
    return _Alone(node, sizes, depthwise).model


class _Alone:
    def __init__(self, node: ir.Node, sizes: dict, depthwise: ir.Node | None) -> None:
        self.tape = ir.tape.Tape()
        weight, (y,) = weight_of(node), node.outputs
        self.integers = scale_of(node.inputs[1]) is not None
        first = (depthwise or node).inputs[0]
        inputs = [ir.val('x', ir.DataType.FLOAT, sizes[_float(first).name])]
        if depthwise is None:
            x = self._pass_on(inputs[0], quantiser_of(first), weight.shape[1], BEFORE)
        else:
            x = inputs[0]
            if _is_blocked(_float(first)):
                x = self._pass_on(x, quantiser_of(first), x.shape[1])
            x = self._convolve(depthwise, constant(depthwise.inputs[1]), x, BEFORE)
        last = self._convolve(node, weight, x, y.name)
        quantiser, reader = quantiser_of(node.inputs[0]), reader_behind(y)
        if reader is None or weight_of(reader) is None:
            inputs.append(ir.val('shortcut', ir.DataType.FLOAT, sizes[y.name]))
            shortcut = self._pass_on(inputs[1], quantiser, len(weight))
            last = self.tape.op('Add', [shortcut, last])
        after = self._pass_on(self.tape.op('Relu', [last]), quantiser, len(weight))
        out = ir.val('out', ir.DataType.FLOAT)
        self.tape.op('ReduceMean', [after], dict(axes=[2, 3]), output=out)
        made = ir.Graph(
            inputs,
            [out],
            nodes=self.tape.nodes,
            initializers=self.tape.initializers,
            opset_imports=node.graph.opset_imports,
            name='alone',
        )
        self.model = ir.Model(made, ir_version=8)

    def _hold(self, array: np.ndarray) -> ir.Value:
        return self.tape.initializer(ir.tensor(array), f'constant_{len(self.tape.initializers)}')

    def _quantise(self, x: ir.Value, quantiser: ir.Node | None) -> ir.Value:
        if quantiser is None:
            return x
        settings = [self._hold(constant(value)) for value in quantiser.inputs[1:]]
        whole = self.tape.op('QuantizeLinear', [x, *settings])
        return self.tape.op('DequantizeLinear', [whole, *settings])

    def _weigh(self, weight: np.ndarray, scale: np.ndarray | float | None) -> ir.Value:
        if scale is None:
            return self._hold(weight)
        scales = np.broadcast_to(scale, (len(weight), 1, 1, 1)).ravel()
        whole = [self._hold(np.rint(weight / scale).astype(np.int8)), self._hold(scales)]
        return self.tape.op('DequantizeLinear', whole, dict(axis=0))

    def _convolve(self, node: ir.Node, weight: np.ndarray, x: ir.Value, name: str) -> ir.Value:
        inputs = [
            self._quantise(x, quantiser_of(node.inputs[0])),
            self._weigh(weight, scale_of(node.inputs[1])),
            self._hold(bias_of(node)),
        ]
        return self.tape.op('Conv', inputs, node.attributes, output=ir.val(name))

    def _pass_on(
        self, x: ir.Value, quantiser: ir.Node | None, channels: int, name: str | None = None
    ) -> ir.Value:
        ones = np.ones((channels, 1, 1, 1), np.float32)
        held = self._weigh(ones, np.float32(1 / 127) if self.integers else None)
        inputs, output = [self._quantise(x, quantiser), held], ir.val(name)
        return self.tape.op('Conv', inputs, dict(group=channels), output=output)


def _float(value: ir.Value) -> ir.Value:
    quantiser = quantiser_of(value)
    return value if quantiser is None else quantiser.inputs[0]


def _is_blocked(value: ir.Value) -> bool:
    """Whether runtimes have a map in their convolutions' layout."""
    while value.producer() is not None and looks_at_values(value.producer()):
        value = value.producer().inputs[0]
    node = value.producer()
    if node is not None and node.op_type == 'Add':
        return all(constant(value) is None for value in node.inputs)
    return node is not None and node.op_type in _BLOCKED
