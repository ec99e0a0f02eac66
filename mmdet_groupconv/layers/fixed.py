"""Plain group convolution, the baseline that every method is to beat."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import SelfGatedConv2d, too_few_channels
from .gate import EqualGroups, Gate


class FixedGroupConv2d(SelfGatedConv2d, nn.Conv2d):
    """Groups that training doesn't change, as ``nn.Conv2d(groups=...)`` has them.

    Unlike that, it keeps the dense weight, so dense checkpoints load and MACs have a dense host,
    and its groups are state: contiguous from the start (where they don't divide the channels they
    differ by one), any others once set, as ``tools/group.py`` chooses them from trained weights.

    channel_groups ``[C]``, filter_groups ``[K]``: int64 buffers, the group of each. groups: at most
    as many as channels; a layer may use fewer. equal_groups: how many there are of equal size, or 0
    where they differ. Other arguments: ``nn.Conv2d``'s.
    """

    static_gate = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, *, groups: int = 4, **kwargs
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **kwargs)
        reason = too_few_channels(in_channels, out_channels, groups, 'FixedGroupConv2d', 'groups')
        if reason:
            raise ValueError(f'FixedGroupConv2d has {reason}')
        self.most_groups = groups
        for name, number in (('channel_groups', in_channels), ('filter_groups', out_channels)):
            self.register_buffer(name, torch.arange(number) * groups // number)
        self._count_groups()

    @classmethod
    def why_dense(cls, in_channels: int, out_channels: int, groups: int = 4) -> str | None:
        """See :class:`GroupedConv2d`."""
        return too_few_channels(in_channels, out_channels, groups, cls.__name__, 'groups')

    def start_from_groups(self, channel_groups: Tensor, filter_groups: Tensor) -> None:
        """Have given groups, ``[C]`` and ``[K]``, instead of contiguous ones."""
        self.channel_groups.copy_(channel_groups)
        self.filter_groups.copy_(filter_groups)
        self._count_groups()

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._count_groups()

    def _count_groups(self) -> None:
        # Here rather than in each forward pass, which would have to wait for the device.
        sizes = [
            groups.bincount(minlength=self.most_groups)
            for groups in (self.channel_groups, self.filter_groups)
        ]
        used = [size[size > 0] for size in sizes]
        equal = torch.equal(sizes[0] > 0, sizes[1] > 0) and all((u == u[0]).all() for u in used)
        self.equal_groups = len(used[0]) if equal else 0

    def gate(self, x: Tensor) -> Gate:
        """See :class:`SelfGatedConv2d`."""
        mask = F.one_hot(self.channel_groups, self.most_groups).t()[None]  # [1, G, C]
        equal = None
        if self.equal_groups:
            orders = (g.argsort(stable=True) for g in (self.channel_groups, self.filter_groups))
            equal = EqualGroups(*orders, self.equal_groups)
        return Gate(mask.to(self.weight.dtype), assign=self.filter_groups, equal=equal)
