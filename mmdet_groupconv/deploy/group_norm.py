"""Group normalisation, as graphs spell it."""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from .graph import constant


class GroupNorm(NamedTuple):
    """``Reshape, InstanceNormalization, Reshape, Mul, Add``: the nodes, the second Reshape with the
    Shape that it asks for."""

    apart: ir.Node
    norm: ir.Node
    shape: ir.Node
    back: ir.Node
    scale: ir.Node
    shift: ir.Node

    @classmethod
    def at(cls, node: ir.Node) -> 'GroupNorm | None':
        """The one that `node` begins, or that it is the Shape of; None for other nodes."""
        if node.op_type == 'Shape':
            readers = (n for n in node.inputs[0].consumers() if n.op_type == 'Reshape')
            found = (cls.at(reader) for reader in readers)
            return next((norm for norm in found if norm is not None and norm.shape is node), None)
        nodes = [node]
        for kind in ('InstanceNormalization', 'Reshape', 'Mul', 'Add'):
            y = nodes[-1].outputs[0]
            if y.is_graph_output() or len(y.uses()) != 1 or y.consumers()[0].op_type != kind:
                return None
            nodes.append(y.consumers()[0])
        apart, norm, back, scale, shift = nodes
        shape, sides = back.inputs[1].producer(), constant(apart.inputs[1])
        own = shape is not None and shape.op_type == 'Shape' and shape.inputs[0] is node.inputs[0]
        affine = [constant(value) for value in (*norm.inputs[1:], scale.inputs[1], shift.inputs[1])]
        if not own or sides is None or len(sides) != 3 or any(a is None for a in affine):
            return None
        plain = len(affine[0]) == sides[1] and (affine[0] == 1).all() and not affine[1].any()
        each = affine[2].shape == affine[3].shape
        return cls(apart, norm, shape, back, scale, shift) if plain and each else None

    @property
    def y(self) -> ir.Value:
        """What comes out."""
        return self.shift.outputs[0]

    @property
    def channels(self) -> int:
        """How many there are."""
        return constant(self.scale.inputs[1]).size

    @property
    def size(self) -> int:
        """Channels of a group."""
        return self.channels // int(constant(self.apart.inputs[1])[1])

    def whole(self, needed: np.ndarray) -> np.ndarray:
        """``[C]`` bool, of all groups of which something is needed."""
        return needed.reshape(-1, self.size).any(axis=1).repeat(self.size)

    def fits(self, ids: np.ndarray) -> bool:
        """Whether channels ``[n]``, -1 for none, are whole groups one after the other."""
        if len(ids) % self.size:
            return False
        groups = np.sort(ids.reshape(-1, self.size), axis=1)
        first = groups[:, :1]
        whole = (groups == first + np.arange(self.size)) & (first % self.size == 0)
        return bool((whole.all(axis=1) | (groups == -1).all(axis=1)).all())
