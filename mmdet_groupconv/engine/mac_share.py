"""What grouping is to leave of a dense network's MACs, and how far a grouped one is from it."""

import copy

import torch
from torch import nn

from ..grouping import gates_by_image
from ..macs import MacReport, count_macs


class MacShare:
    """share: of the MACs of `dense`, or of its backbone's where `scope` is 'backbone' and not
    'detector', counted for images of `input_size`, (height, width)."""

    def __init__(
        self, dense: nn.Module, share: float, scope: str, input_size: tuple[int, int]
    ) -> None:
        self.share = share
        self.scope = scope
        self.input_size = input_size
        self.dense = count_macs(dense, input_size)
        self.macs = {row.name: row.original for row in self.dense.layers}
        self.whole = self.of_scope(self.dense).original

    def count(self, network: nn.Module) -> MacReport:
        """MACs of a grouped network, its gates by image open."""
        return count_macs(network, self.input_size)

    def of_scope(self, report: MacReport) -> MacReport:
        """The part that the share is meant of."""
        return report.parts['backbone'] if self.scope == 'backbone' else report

    def excess(self, report: MacReport) -> float:
        """By how many MACs a network does more than asked for."""
        return float(self.of_scope(report).macs) - self.share * self.whole

    def for_groups(self, network: nn.Module, method: str) -> float:
        """The MACs that are left for the grouped layers of `network`, all gates closed.

        Raises ValueError where none are.
        """
        opened = self.of_scope(self.count(network))
        least = opened.always_on + opened.gate_nets
        if method == 'msgc':  # what only closed gates would read is not computed
            least -= float(self.of_scope(self._closed(network)).unread)
        left = self.share * self.whole - least
        if left <= 0:
            raise ValueError(
                f'--macs {self.share} of the {self.scope} can not be met with {method}: the least '
                f'is above {least / self.whole:.3f}, what stays dense'
            )
        return left

    def _closed(self, network: nn.Module) -> MacReport:
        network = copy.deepcopy(network)
        for gates in gates_by_image(network):
            channels = gates.generator.conv[3].out_channels // gates.generator.heads
            gates.generator.hold(torch.zeros(gates.generator.heads, channels))
        image = next(network.parameters()).new_zeros(1, 3, *self.input_size)
        return count_macs(network, self.input_size, image)
