"""MSGC's gate nets: middle spectrum grouped convolution, arXiv 2304.06305."""

import torch
from torch import Tensor, nn

from .gate import Gate
from .sampling import sample_gate


class GatePool(nn.AdaptiveAvgPool2d):
    """Global average pooling of a block's input, shared by the block's gate nets."""

    def __init__(self) -> None:
        super().__init__(1)


class GateNet(nn.Module):
    """Two 1x1 convolutions from pooled features to a number per head and channel (section 3.2).

    ``conv``: C_in -> C_in // reduction without bias, BN, ReLU, -> heads * channels. Keys are the
    published ones (``conv.0.weight`` ... ``conv.3.bias``). Computed outside of autocast.

    in_channels: of the block's input. channels: of the convolution that is gated.
    """

    def __init__(self, in_channels: int, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        hidden = max(in_channels // reduction, 1)
        self.heads = heads
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, heads * channels, 1),
        )
        self.init_weights()

    def init_weights(self) -> None:
        """He initialisation. MMEngine calls it after the host's own, which would reset biases."""
        for conv in (self.conv[0], self.conv[3]):
            nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, pooled: Tensor) -> Tensor:
        """pooled: ``[B, C_in, 1, 1]``. Returns ``[B, heads, channels]``.

        Raises ValueError for a batch of one in training, where BN has nothing to normalise over.
        """
        norm = self.conv[1]
        if norm.training and pooled.size(0) == 1 and not isinstance(norm, nn.SyncBatchNorm):
            raise ValueError(
                'gate nets in training mode got a batch of 1 image, expected 2 or more: their '
                'BatchNorm works on pooled features; set norm_eval=True or a larger batch_size'
            )
        with torch.autocast(pooled.device.type, enabled=False):
            out = self.conv(pooled.to(self.conv[0].weight.dtype))
        return out.view(pooled.size(0), self.heads, -1)


class MaskGenerator(GateNet):
    """Decides which channels each head reads; a 0/1 mask (section 3.3)."""

    def init_weights(self) -> None:
        """Start almost open: a channel is read with probability sigmoid(2) = 0.88."""
        super().init_weights()
        nn.init.constant_(self.conv[3].bias, 2.0)

    def forward(self, pooled: Tensor) -> Tensor:
        """See :class:`GateNet`; the mask's gradients are straight-through."""
        return sample_gate(super().forward(pooled), self.training)


class AttentionGenerator(GateNet):
    """Weighs the channels that each head reads (section 3.4)."""

    def init_weights(self) -> None:
        """Start as 1 everywhere, so that a dense network's features are kept."""
        super().init_weights()
        nn.init.constant_(self.conv[3].weight, 0.0)
        nn.init.constant_(self.conv[3].bias, 1.0)


def add_gate_nets(
    block: nn.Module, suffix: str, in_channels: int, channels: int, heads: int, reduction: int,
    attention: bool,
) -> None:  # fmt: skip
    """Give `block` the nets ``maskgen{suffix}`` and, with attention, ``attgen{suffix}``."""
    sizes = in_channels, channels, heads, reduction
    block.add_module(f'maskgen{suffix}', MaskGenerator(*sizes))
    if attention:
        block.add_module(f'attgen{suffix}', AttentionGenerator(*sizes))


def make_gate(block: nn.Module, suffix: str, pooled: Tensor) -> Gate:
    """Run the nets that :func:`add_gate_nets` gave. pooled: ``[B, C_in, 1, 1]``."""
    attention = getattr(block, f'attgen{suffix}', None)
    mask = getattr(block, f'maskgen{suffix}')(pooled)
    return Gate(mask, None if attention is None else attention(pooled))
