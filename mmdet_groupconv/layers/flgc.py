"""FLGC: fully learnable group convolution, arXiv 1904.00346."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_integer
from .conv import SelfGatedConv2d, too_few_channels
from .gate import Gate

MARGIN = 3.0  # softmax of 4 groups: 0.87 to the member's own, the rest to be won by gradients
OUT_OF_REACH = 100.0


class FLGCConv2d(SelfGatedConv2d, nn.Conv2d):
    """A convolution that learns which group each channel and each filter belongs to (section 3).

    channel_logits: ``S [C, G]``, filter_logits: ``T [K, G]``. Forward uses the one-hot of the
    row-wise argmax, ``y = conv(x, W * (T_hat S_hat^T))``; backward goes to every entry of the row
    through the row-wise softmax. A group may end up without channels (its filters then give the
    bias alone) or without filters.

    groups: 1 ... min(in_channels, out_channels), else ValueError. Other arguments: ``nn.Conv2d``'s.
    """

    static_gate = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size, *, groups: int = 4, **kwargs
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **kwargs)
        limit = min(in_channels, out_channels)
        sizes = f'FLGCConv2d with {in_channels} -> {out_channels} channels'
        check_integer('groups', groups, sizes, 1, limit)
        self.channel_logits = nn.Parameter(torch.empty(in_channels, groups))
        self.filter_logits = nn.Parameter(torch.empty(out_channels, groups))
        self.init_gates()

    @classmethod
    def why_dense(cls, in_channels: int, out_channels: int, groups: int = 4) -> str | None:
        """See :class:`GroupedConv2d`."""
        return too_few_channels(in_channels, out_channels, groups, cls.__name__, 'groups')

    def init_gates(self) -> None:
        """Random groups, close enough to each other for the first gradients to move members."""
        nn.init.normal_(self.channel_logits, std=0.1)
        nn.init.normal_(self.filter_logits, std=0.1)

    @torch.no_grad()
    def start_from_groups(self, channel_groups: Tensor, filter_groups: Tensor) -> None:
        """Begin with given groups, ``[C]`` and ``[K]``, instead of random ones.

        The logits of a member are :data:`MARGIN` above the others'. Groups that nobody is in stay
        out of reach, so that a layer may have fewer than `groups`.
        """
        for logits, members in (
            (self.channel_logits, channel_groups),
            (self.filter_logits, filter_groups),
        ):
            used = torch.zeros_like(logits[0], dtype=torch.bool)
            used[torch.cat([channel_groups, filter_groups]).to(used.device)] = True
            logits.copy_(torch.where(used, 0.0, -OUT_OF_REACH))
            logits.scatter_add_(
                1, members.to(logits.device)[:, None], torch.full_like(logits, MARGIN)
            )

    def gate(self, x: Tensor) -> Gate:
        """See :class:`SelfGatedConv2d`."""
        mask = straight_through_one_hot(self.channel_logits).t()[None]
        return Gate(mask, assign=straight_through_one_hot(self.filter_logits))


def straight_through_one_hot(logits: Tensor) -> Tensor:
    """One-hot of the last dimension's argmax, with the gradient of its softmax. ``[..., G]``."""
    soft = logits.softmax(dim=-1)
    hard = F.one_hot(logits.argmax(dim=-1), logits.size(-1)).to(soft.dtype)
    return hard + (soft - soft.detach())
