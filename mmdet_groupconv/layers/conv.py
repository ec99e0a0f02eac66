"""A dense-shaped convolution whose connections a gate decides."""

from collections.abc import Sequence

from torch import Tensor, nn

from .checks import check_integer
from .functional import equal_groups_conv2d, grouped_conv2d
from .gate import Gate, GroupedLayer


class GroupedConv2d(GroupedLayer, nn.Conv2d):
    """``nn.Conv2d`` with a gate: ``y = conv(x, W * M)``, ``M = assign @ gate``.

    The weight keeps the dense shape and key, so dense checkpoints load. Here the gate comes from
    outside; methods that make it in the layer derive from :class:`SelfGatedConv2d`.

    Arguments: those of ``nn.Conv2d``; ``groups`` other than 1 and padding that is not zeros raise
    ValueError.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size, **kwargs) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **kwargs)
        if self.groups != 1:
            raise ValueError(f'groups={self.groups} of a gated convolution, expected 1')
        if self.padding_mode != 'zeros':
            raise ValueError(f"padding_mode={self.padding_mode!r}, expected 'zeros'")

    @classmethod
    def why_dense(cls, in_channels: int, out_channels: int, **method) -> str | None:
        """Why a layer of this size can't be grouped and should stay dense; None where it can.

        method: the arguments that the method's layer takes beyond those of ``nn.Conv2d``.
        """
        return None

    def forward(self, x: Tensor, gate: Gate) -> Tensor:
        """x: ``[B, C, H, W]``; gate: for ``C`` channels."""
        return self.convolve(x, gate)

    def convolve(self, x: Tensor, gate: Gate) -> Tensor:
        """The gated convolution, shown to the gate hooks. Returns ``[B, K, H', W']``."""
        if self.frozen is not None:
            gate = self.frozen
        geometry = self.stride, self.padding, self.dilation
        if gate.equal is not None:
            y = equal_groups_conv2d(x, self.weight, *gate.equal, self.bias, *geometry)
        else:
            gating = gate.value, gate.assign
            y = grouped_conv2d(x, self.weight, *gating, self.bias, *geometry, gate.sizes)
        self._show_gate(gate, x, y)
        return y


class SelfGatedConv2d(GroupedConv2d):
    """A gated convolution whose layer makes the gate.

    What a method says of itself is all that compact inference goes by:

    - what comes before the convolution: :meth:`before` names modules, which can be fused; anything
      else goes into :meth:`prepare`, which is then called as it is.
    - what decides the gate: :meth:`decide` sees the pooled input alone, with a ``gate_pool`` that
      the method adds; :meth:`gate` sees all of it, or nothing where ``static_gate`` is set.

    A method that overrides ``forward`` or ``convolve`` computes something else, and runs eagerly.

    Methods name ``nn.Conv2d`` as a base as well: MMEngine's ``init_cfg`` with ``layer='Conv2d'``
    reaches direct subclasses alone.
    """

    @property
    def gate_from_input(self) -> bool:
        """See :class:`GroupedLayer`."""
        return not self.static_gate and self.frozen is None

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, in_channels, H, W]``. Returns ``[B, out_channels, H', W']``."""
        x = self.prepare(x)
        return self.convolve(x, self.gate(x))

    def before(self) -> Sequence[nn.Module]:
        """The modules that the input passes before the convolution, one after the other."""
        return ()

    def prepare(self, x: Tensor) -> Tensor:
        """What comes before the convolution. ``[B, in_channels, H, W]`` -> the same shape."""
        for module in self.before():
            x = module(x)
        return x

    def gate(self, x: Tensor) -> Gate:
        """The gate for what was prepared, ``[B, in_channels, H, W]``."""
        return self.decide(self.gate_pool(x))

    def decide(self, pooled: Tensor) -> Gate:
        """The gate for what was prepared and pooled, ``[B, in_channels, 1, 1]``."""
        raise NotImplementedError


def too_few_channels(
    in_channels: int, out_channels: int, heads: int, layer: str, name: str = 'heads'
) -> str | None:
    """Why `heads` can't share a layer of this size, or None.

    layer, name: of the layer and of its argument. Raises ValueError where `heads` is no count.
    """
    check_integer(name, heads, layer)
    if min(in_channels, out_channels) < heads:
        return f'{in_channels} -> {out_channels} channels for {heads} {name}'
    return None
