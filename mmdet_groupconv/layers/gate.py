"""What every method hands to the grouped convolution: who reads which channels, how strongly."""

from typing import NamedTuple

from torch import Tensor


class Gate(NamedTuple):
    """Connections of one layer for a batch (or for every image, with a batch of one).

    mask: ``[B or 1, G, C]``, 0/1 (straight-through gradients allowed); MACs are counted from it.
    strength: the same shape, or None for 1 everywhere; attention (MSGC) or saliency (DGC).
    """

    mask: Tensor
    strength: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """``mask * strength``, what the channels are multiplied by."""
        return self.mask if self.strength is None else self.mask * self.strength
