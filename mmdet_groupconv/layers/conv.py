"""A dense-shaped convolution that takes its gate from outside."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .functional import grouped_conv2d
from .gate import Gate

GateHook = Callable[[nn.Module, Gate, Tensor, Tensor], None]


class GroupedConv2d(nn.Conv2d):
    """``nn.Conv2d`` with a gate: ``y = conv(x, W * M)``, ``M = assign @ gate``.

    The weight keeps the dense shape and key, so dense checkpoints load. Filters belong to equal,
    contiguous heads, as many as the gate has. Arguments: those of ``nn.Conv2d``; ``groups`` other
    than 1 and padding that is not zeros raise ValueError.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size, **kwargs) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **kwargs)
        if self.groups != 1:
            raise ValueError(f'groups={self.groups} of a gated convolution, expected 1')
        if self.padding_mode != 'zeros':
            raise ValueError(f"padding_mode={self.padding_mode!r}, expected 'zeros'")
        self._gate_hooks: OrderedDict[int, GateHook] = OrderedDict()

    def forward(self, x: Tensor, gate: Gate) -> Tensor:
        """x: ``[B, C, H, W]``; gate: for ``C`` channels and any number of heads dividing K."""
        y = grouped_conv2d(
            x,
            self.weight,
            gate.value,
            None,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
        )
        for hook in self._gate_hooks.values():
            hook(self, gate, x, y)
        return y

    def register_gate_hook(self, hook: GateHook) -> RemovableHandle:
        """Call ``hook(layer, gate, x, y)`` after every forward, until the handle is removed.

        This is how MAC counting, compaction and plots read what was grouped.
        """
        handle = RemovableHandle(self._gate_hooks)
        self._gate_hooks[handle.id] = hook
        return handle
