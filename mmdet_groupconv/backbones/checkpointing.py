"""Activation checkpointing that keeps the gates in the graph."""

from torch import Tensor
from torch.utils.checkpoint import checkpoint


class GateKeepingCheckpoint:
    """Mixin before one of MMDetection's blocks that takes ``with_cp``.

    The host's own checkpoint is the reentrant kind, whose first pass builds no graph: losses on
    gates (a MAC budget, saliencies) would not reach what made them.
    """

    def __init__(self, *args, with_cp: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.checkpointed = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """The host's."""
        if self.checkpointed and x.requires_grad:
            return checkpoint(super().forward, x, use_reentrant=False)
        return super().forward(x)
