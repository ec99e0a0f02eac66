"""Reading a traced ONNX graph, and writing the nodes of a new one."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

_ELEMENTWISE = ('Relu', 'LeakyRelu', 'Clip', 'Sigmoid', 'HardSwish')


class Graph:
    """A graph with its constants at hand.

    A constant may be an initializer, or one in integers with the node that makes floats of it.

    readers: the nodes that read each tensor. maker: the node that each is the output of. outputs:
    names of the graph's own outputs.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.nodes = list(graph.node)
        self.outputs = {output.name for output in graph.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        self.maker = {name: node for node in self.nodes for name in node.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._quantised: dict[str, NodeProto] = {}
        for node in self.nodes:
            if node.op_type == 'Identity' and node.input[0] in self._constants:
                self._constants[node.output[0]] = self._constants[node.input[0]]
            if node.op_type == 'DequantizeLinear' and self._constants.keys() >= {*node.input}:
                self._quantised[node.output[0]] = node
            for name in node.input:
                self.readers[name].append(node)
        self._arrays: dict[str, np.ndarray] = {}

    def constant(self, name: str) -> np.ndarray | None:
        """What a constant holds, as floats; None for what is computed."""
        if name not in self._arrays and (scale := self.scale(name)) is not None:
            whole = self.constant(self._quantised[name].input[0])
            self._arrays[name] = (whole * scale).astype(np.float32)
        elif name in self._constants and name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._constants[name])
        return self._arrays.get(name)

    def root(self, name: str) -> str:
        """The initializer that a constant is, or is the same as."""
        return self._constants[name].name

    def scale(self, name: str) -> np.ndarray | None:
        """Of a constant in integers whose zero is 0, to be multiplied with them; else None."""
        node = self._quantised.get(name)
        if node is None or (len(node.input) > 2 and self.constant(node.input[2]).any()):
            return None
        scale, values = self.constant(node.input[1]), self.constant(node.input[0])
        axis = attributes(node).get('axis', 1) % values.ndim
        sides = [-1 if side == axis else 1 for side in range(values.ndim)]
        return scale.reshape(sides if scale.ndim else [1] * values.ndim)

    def quantiser(self, name: str) -> NodeProto | None:
        """Of a map that was made whole numbers, and floats again: what made whole numbers of it."""
        node = self.maker.get(name)
        before = self.maker.get(node.input[0]) if _is(node, 'DequantizeLinear') else None
        return before if _is(before, 'QuantizeLinear') else None

    def weight(self, node: NodeProto) -> np.ndarray | None:
        """``[K, C, kh, kw]`` of a convolution that reads every channel; None for other nodes.

        Nor for weights that are computed.
        """
        fixed = node.op_type == 'Conv' and all(self.constant(n) is not None for n in node.input[1:])
        if not fixed or attributes(node).get('group', 1) != 1:
            return None
        weight = self.constant(node.input[1])
        return weight if weight.ndim == 4 else None

    def bias(self, node: NodeProto) -> np.ndarray:
        """``[K]`` of a convolution, zeros where it has none."""
        if len(node.input) > 2:
            return self.constant(node.input[2])
        weight = self.constant(node.input[1])
        return np.zeros(len(weight), weight.dtype)

    def is_depthwise(self, node: NodeProto) -> bool:
        """Whether a node is a convolution with a filter a channel, and constant weights."""
        if node.op_type != 'Conv' or any(self.constant(n) is None for n in node.input[1:]):
            return False
        weight, group = self.constant(node.input[1]), attributes(node).get('group', 1)
        return weight.shape[1] == 1 and len(weight) == group > 1

    def passes_channels(self, node: NodeProto) -> bool:
        """Whether each channel of the output is made from the same one of the first input."""
        return self.looks_at_values(node) or self.is_depthwise(node)

    def looks_at_values(self, node: NodeProto) -> bool:
        """Whether a node does the same with each value of its first input, whichever channel."""
        if node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
            scale = self.constant(node.input[1])
            return scale is not None and scale.size == 1 and node.output[0] not in self._quantised
        return node.op_type in _ELEMENTWISE

    def behind(self, node: NodeProto) -> list[NodeProto]:
        """The nodes that read what a node makes."""
        return [reader for name in node.output for reader in self.readers[name]]

    def maps_before(self, node: NodeProto) -> list[NodeProto]:
        """The nodes that make what a node reads; of an RoIAlign its map alone."""
        names = node.input[:1] if node.op_type == 'RoiAlign' else node.input
        return [self.maker[name] for name in names if name in self.maker]

    def reader_behind(self, name: str) -> NodeProto | None:
        """The only reader of a tensor, behind those that pass channels on, or None."""
        while name not in self.outputs and len(self.readers[name]) == 1:
            (reader,) = self.readers[name]
            if not self.passes_channels(reader):
                return reader
            name = reader.output[0]
        return None


class Writer:
    """Nodes and constants of a new graph; a node or constant that is there already is shared."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[tuple, tuple[str, np.ndarray]] = {}
        self._made: dict[tuple, str] = {}
        self._aliases: dict[str, str] = {}

    def constant(self, array: np.ndarray) -> str:
        """The name of an initializer."""
        array = np.ascontiguousarray(array)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self.constants:
            self.constants[key] = f'groups_constant_{len(self.constants)}', array
        return self.constants[key][0]

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attrs) -> str:
        """The name of what it computes: `output`, where that is given."""
        key = kind, tuple(inputs), repr(sorted(attrs.items()))
        if key in self._made and output is None:
            return self._made[key]
        name = output or f'groups_{len(self._made)}'
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f'{kind}_{name}', **attrs))
        self._made[key] = name
        return name

    def alias(self, name: str, tensor: str) -> None:
        """Let `name`, which is no output of the graph, stand for another tensor."""
        self._aliases[name] = tensor

    def finish(self, model: ModelProto) -> ModelProto:
        """`model` with these nodes in the place of its own, less what nobody reads."""
        new = ModelProto()
        new.CopyFrom(model)
        del new.graph.node[:], new.graph.initializer[:], new.graph.value_info[:]
        read, kept = {output.name for output in model.graph.output}, []
        for node in reversed(self.nodes):
            if read.intersection(node.output):
                read.update(self._aliases.get(name, name) for name in node.input)
                kept.append(node)
        new.graph.node.extend(reversed(kept))
        for node in new.graph.node:
            node.input[:] = [self._aliases.get(name, name) for name in node.input]
        own = [numpy_helper.from_array(array, name) for name, array in self.constants.values()]
        new.graph.initializer.extend(
            tensor for tensor in (*model.graph.initializer, *own) if tensor.name in read
        )
        return new


def attributes(node: NodeProto) -> dict:
    """A node's attributes by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _is(node: NodeProto | None, kind: str) -> bool:
    return node is not None and node.op_type == kind
