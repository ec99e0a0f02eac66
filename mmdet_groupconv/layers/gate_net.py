"""What the small nets that decide gates are made of, whatever the method."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatePool(nn.AdaptiveAvgPool2d):
    """Global average pooling, shared by the nets that look at the same map."""

    def __init__(self) -> None:
        super().__init__(1)


class _BelowConv2d(nn.Conv2d):
    pass


class GateConv2d(_BelowConv2d):
    """A 1x1 convolution of pooled features that hosts do not initialise.

    MMEngine's ``init_cfg`` with ``layer='Conv2d'`` reaches ``nn.Conv2d`` and its direct subclasses,
    hence the class between: a detector's head would else reset the biases that keep gates open.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, 1, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, in_channels, 1, 1]`` -> ``[B, out_channels, 1, 1]``."""
        if self.groups > 1:
            return super().forward(x)
        # A convolution of one pixel takes several times as long.
        y = F.linear(x.flatten(1), self.weight.flatten(1), self.bias)
        return y[..., None, None]


class GateNet(nn.Module):
    """Base of the nets from pooled features to a number per head and channel.

    Computed outside of autocast: half precision would move decisions.
    """

    def forward(self, pooled: Tensor) -> Tensor:
        """pooled: ``[B, C_in, 1, 1]``. Returns ``[B, heads, channels]``."""
        with torch.autocast(pooled.device.type, enabled=False):
            out = self.decide(pooled.to(next(self.parameters()).dtype))
        return out.view(pooled.size(0), self.heads, out.size(1) // self.heads)

    def decide(self, pooled: Tensor) -> Tensor:
        """``[B, C_in, 1, 1]`` -> ``[B, heads * channels, 1, 1]``."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """The method's own initialisation."""
        raise NotImplementedError

    @torch.no_grad()
    def _start_by_rank(self, last: nn.Conv2d, importance: Tensor, steps: Tensor) -> None:
        """Let the net's last convolution give the same for every image: only its biases count.

        Those of a head are `steps`, ``[channels]``, by the channels' rank.
        importance: ``[heads, channels]``, more for what matters more.

        Raises ValueError for another shape and for values that are not finite.
        """
        expected = self.heads, last.out_channels // self.heads
        if tuple(importance.shape) != expected:
            raise ValueError(
                f'importance has shape {tuple(importance.shape)}, expected {expected}: '
                '[heads, channels]'
            )
        if not importance.isfinite().all():
            raise ValueError('importance has values that are not finite, expected finite ones')
        rank = importance.argsort(dim=1, stable=True).argsort(dim=1)
        last.weight.zero_()
        last.bias.copy_(steps.to(rank.device)[rank].flatten())
