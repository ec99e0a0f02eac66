"""Plain group convolution, the baseline that every method is to beat."""

import torch
from torch import Tensor, nn

from .conv import SelfGatedConv2d, too_few_channels
from .gate import Gate


class FixedGroupConv2d(SelfGatedConv2d, nn.Conv2d):
    """Contiguous groups that never change, as ``nn.Conv2d(groups=...)`` has them.

    Unlike that, it keeps the dense weight, so dense checkpoints load and MACs have a dense host.
    Groups that don't divide the channels differ by one channel or filter.

    groups: at most as many as channels. Other arguments: ``nn.Conv2d``'s.
    """

    static_gate = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, *, groups: int = 4, **kwargs
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **kwargs)
        reason = too_few_channels(in_channels, out_channels, groups, 'FixedGroupConv2d', 'groups')
        if reason:
            raise ValueError(f'FixedGroupConv2d has {reason}')
        channels = torch.arange(in_channels) * groups // in_channels  # [C], the group of each
        mask = (channels == torch.arange(groups)[:, None]).float()
        self.register_buffer('mask', mask[None], persistent=False)
        filters = torch.arange(out_channels) * groups // out_channels
        self.register_buffer('assign', filters, persistent=False)

    @classmethod
    def why_dense(cls, in_channels: int, out_channels: int, groups: int = 4) -> str | None:
        """See :class:`GroupedConv2d`."""
        return too_few_channels(in_channels, out_channels, groups, cls.__name__, 'groups')

    def gate(self, x: Tensor) -> Gate:
        """See :class:`SelfGatedConv2d`."""
        return Gate(self.mask, assign=self.assign)
