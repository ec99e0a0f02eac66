"""Which channels of a graph somebody reads."""

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ..compiler.parting import round_up
from .graph import POOLS, is_depthwise, passes_channels, weight_of
from .group_norm import GroupNorm


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
    norm = GroupNorm.at(node) if node.op_type in ('Reshape', 'Shape') else None
    if norm is not None:
        found = needed[norm.y]
        return None if found is None else norm.whole(found)
    return needed[node.outputs[0]] if passes_channels(node) else None


def in_blocks(needed: np.ndarray) -> np.ndarray:
    """The same, but all where those that nobody reads don't fill a block that could be saved."""
    saves = round_up(int(needed.sum())) < round_up(len(needed))
    return needed if saves else np.ones_like(needed)


class Source(NamedTuple):
    """Where the channels of a map come from.

    value: the tensor that nodes pass on until they get there, made by a convolution or something
    else. depthwise: the last of these nodes that is a convolution, unless a pool comes behind it or
    what makes `value` makes only the channels of it that are read; else None.
    """

    value: ir.Value
    depthwise: ir.Node | None

    @classmethod
    def of(cls, value: ir.Value) -> 'Source':
        """Of a tensor."""
        passed: list[ir.Node] = []
        while value.producer() is not None and passes_channels(value.producer()):
            passed.append(value.producer())
            value = passed[-1].inputs[0]
        last = next((n for n in passed if is_depthwise(n) or n.op_type in POOLS), None)
        made = cls(value, None)
        return made if made.drops or last is None or not is_depthwise(last) else cls(value, last)

    @property
    def drops(self) -> bool:
        """Whether channels that nobody reads aren't computed in the first place."""
        return self.value.producer() is not None and weight_of(self.value.producer()) is not None

    @property
    def of_channels(self) -> ir.Value:
        """The tensor whose unread channels can be left out."""
        return self.depthwise.outputs[0] if self.depthwise is not None else self.value
