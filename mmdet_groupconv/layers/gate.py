"""What every method hands to the grouped convolution, and how others get to see it."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class EqualGroups(NamedTuple):
    """Disjoint groups of equal size.

    channels ``[C]``, filters ``[K]``: int64, those of group 0, then those of group 1, and so on.
    number: of the groups; divides both.
    """

    channels: Tensor
    filters: Tensor
    number: int


class Gate(NamedTuple):
    """Connections of one layer for a batch (or for every image, with a batch of one).

    mask: ``[B or 1, G, C]``, 0/1 (straight-through gradients allowed); MACs are counted from it.
    strength: the same shape, or None for 1 everywhere; attention (MSGC) or saliency (DGC).
    assign: filter -> group, as ``[K]`` int64 or one-hot ``[K, G]``; None for G equal, contiguous
    heads. sizes: how many filters each group has, where an int64 `assign` is known beforehand: so
    that the host need not wait for the device to tell. equal: where a static gate parts channels
    and filters into disjoint groups of equal size, these: only their own work is done then.
    """

    mask: Tensor
    strength: Tensor | None = None
    assign: Tensor | None = None
    sizes: tuple[int, ...] | None = None
    equal: EqualGroups | None = None

    @property
    def value(self) -> Tensor:
        """``mask * strength``, what the channels are multiplied by."""
        return self.mask if self.strength is None else self.mask * self.strength


GateHook = Callable[[nn.Module, Gate, Tensor, Tensor], None]


class GroupedLayer(nn.Module):
    """A layer of the dense shape whose connections a gate decides: a mixin before the host layer.

    static_gate: class attribute, whether all images share the gate. frozen: None, or the gate of
    every image in the place of those that come with it.
    """

    static_gate = False
    frozen: Gate | None = None

    @property
    def gate_from_input(self) -> bool:
        """Whether the gate is made from this layer's own input, which then is needed in full."""
        return False

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._gate_hooks: OrderedDict[int, GateHook] = OrderedDict()

    def register_gate_hook(self, hook: GateHook) -> RemovableHandle:
        """Call ``hook(layer, gate, x, y)`` after every forward, until the handle is removed.

        This is how MAC counting, compaction and plots read what was grouped.
        """
        handle = RemovableHandle(self._gate_hooks)
        self._gate_hooks[handle.id] = hook
        return handle

    def init_gates(self) -> None:
        """Give what decides the gate its first values; for hosts that initialise whole layers."""

    def _show_gate(self, gate: Gate, x: Tensor, y: Tensor) -> None:
        for hook in self._gate_hooks.values():
            hook(self, gate, x, y)
