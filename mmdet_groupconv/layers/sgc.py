"""SGC: self-grouping convolution, SG-CNN (Neural Networks 132, 2020).

The layers hold the mask; ``engine/self_grouping.py`` takes the steps that shrink it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_integer
from .conv import SelfGatedConv2d
from .gate import Gate, GroupedLayer


class SelfGrouping(GroupedLayer):
    """What convolutions and fully connected layers share: a mask that pruning steps shrink.

    mask: ``[K, C]`` buffer, 0/1, the connections that are left; each filter's row is its gate.
    clusters: how many groups of filters a step forms, fewer where fewer filters differ.
    """

    static_gate = True

    def __init__(self, *args, groups: int = 16, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_integer('groups', groups, type(self).__name__)
        self.clusters = groups
        self.register_buffer('mask', torch.ones(self.weight.shape[:2]))

    def importance(self) -> Tensor:
        """Importance of each channel to each filter, ``[K, C]``: ``sum |W|`` of what is left."""
        return self.weight.detach().abs().flatten(2).sum(dim=2) * self.mask

    def gate(self, x: Tensor) -> Gate:
        """The mask, whatever the input."""
        return Gate(self.mask[None])


class SGCConv2d(SelfGrouping, SelfGatedConv2d, nn.Conv2d):
    """A convolution whose filters group themselves by what matters to them.

    groups: clusters that a pruning step forms. Other arguments: ``nn.Conv2d``'s.
    """


class SGCLinear(SelfGrouping, nn.Linear):
    """The same for a fully connected layer; importance is ``|W|``.

    groups: clusters that a pruning step forms. Other arguments: ``nn.Linear``'s.
    """

    def importance(self) -> Tensor:
        """See :class:`SelfGrouping`."""
        return self.weight.detach().abs() * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, in_features]``. Returns ``[B, out_features]``."""
        gate = self.gate(x)
        y = F.linear(x, self.weight * gate.mask[0], self.bias)
        self._show_gate(gate, x, y)
        return y
