"""MSGC: middle spectrum grouped convolution, arXiv 2304.06305."""

import torch
from torch import Tensor, nn

from .checks import check_flag, check_integer
from .conv import SelfGatedConv2d, too_few_channels
from .gate import Gate
from .gate_net import GateConv2d, GateNet, GatePool
from .sampling import sample_gate

_FAR = 1e4  # of a logit, whatever the image


class _TwoLayerNet(GateNet):
    """Two 1x1 convolutions from pooled features to a number per head and channel (section 3.2).

    ``conv``: C_in -> C_in // reduction without bias, norm, ReLU, -> heads * channels. Keys are the
    published ones (``conv.0.weight`` ... ``conv.3.bias``).

    in_channels: of the map that is pooled. channels: of the convolution that is gated.
    over_batch: BatchNorm, as published; else each image by itself.
    """

    def __init__(
        self, in_channels: int, channels: int, heads: int, reduction: int, over_batch: bool = True
    ) -> None:
        super().__init__()
        least = 1 if over_batch else 2  # there is nothing to normalise in one number
        hidden = max(in_channels // reduction, least)
        self.heads = heads
        self.conv = nn.Sequential(
            GateConv2d(in_channels, hidden, bias=False),
            nn.BatchNorm2d(hidden) if over_batch else nn.GroupNorm(1, hidden),
            nn.ReLU(inplace=True),
            GateConv2d(hidden, heads * channels),
        )
        self.init_weights()

    def init_weights(self) -> None:
        """He initialisation."""
        for conv in (self.conv[0], self.conv[3]):
            nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
        nn.init.ones_(self.conv[1].weight)
        nn.init.zeros_(self.conv[1].bias)

    @property
    def needs_a_batch(self) -> bool:
        """Whether it normalises over the images of a batch, so that one alone won't do."""
        return type(self.conv[1]) is nn.BatchNorm2d and self.conv[1].training

    def decide(self, pooled: Tensor) -> Tensor:
        """See :class:`GateNet`.

        Raises ValueError for a batch of one in training, where BN has nothing to normalise over.
        """
        if pooled.size(0) == 1 and self.needs_a_batch:
            raise ValueError(
                'gate nets in training mode got a batch of 1 image, expected 2 or more: their '
                'BatchNorm works on pooled features; set norm_eval=True or a larger batch_size'
            )
        return self.conv(pooled)


class MaskGenerator(_TwoLayerNet):
    """Decides which channels each head reads; a 0/1 mask (section 3.3).

    noise: amplitude of the noise by which training samples the gates: 1 as published, 0 for the
    gates of evaluation.
    """

    noise = 1.0

    def init_weights(self) -> None:
        """Start almost open: a channel is read with probability sigmoid(2) = 0.88."""
        super().init_weights()
        nn.init.constant_(self.conv[3].bias, 2.0)

    def start_from_importance(self, importance: Tensor, kept: float = 1.0) -> None:
        """Start open for every image, with what matters least the closest to being closed (ours).

        For weights of a trained dense network: evaluation gives its outputs, and so does training
        while there is no noise. By rank within each head, logits of what is to be kept go from 1 to
        3, around the published 2, those of the rest from 0.2 to 0.8: a MAC budget, which pushes all
        of them down, closes these first, and soon.

        importance: ``[heads, channels]``, more for what matters more. kept: the share that the
        budget leaves. Raises ValueError for another shape and for values that are not finite.
        """
        channels = importance.size(-1)
        stay = round(kept * channels)
        steps = torch.cat(
            [torch.linspace(0.2, 0.8, channels - stay), torch.linspace(1.0, 3.0, stay)]
        )
        self._start_by_rank(self.conv[3], importance, steps)

    @torch.no_grad()
    def hold(self, mask: Tensor) -> None:
        """Give this mask for every image, in training as well (ours).

        Logits are so far from 0 then that no gradient reaches them. mask: ``[heads, channels]``.
        """
        self.conv[3].weight.zero_()
        self.conv[3].bias.copy_(torch.where(mask > 0, _FAR, -_FAR).flatten())

    @property
    def held(self) -> Tensor | None:
        """``[heads, channels]``, 0/1: the mask that it gives for every image; else None."""
        bias = self.conv[3].bias.detach().view(self.heads, -1)
        return (bias > 0).to(bias) if bool((bias.abs() > _FAR / 2).all()) else None

    def forward(self, pooled: Tensor) -> Tensor:
        """See :class:`GateNet`; the mask's gradients are straight-through."""
        return sample_gate(super().forward(pooled), self.training, self.noise)


class AttentionGenerator(_TwoLayerNet):
    """Weighs the channels that each head reads (section 3.4)."""

    def init_weights(self) -> None:
        """Start as 1 everywhere, so that a dense network's features are kept."""
        super().init_weights()
        nn.init.constant_(self.conv[3].weight, 0.0)
        nn.init.constant_(self.conv[3].bias, 1.0)


GateNets = tuple[MaskGenerator, AttentionGenerator | None]


def add_gate_nets(
    block: nn.Module, suffix: str, in_channels: int, channels: int, heads: int, reduction: int,
    attention: bool, over_batch: bool = True,
) -> None:  # fmt: skip
    """Give `block` the nets ``maskgen{suffix}`` and, with attention, ``attgen{suffix}``."""
    check_flag('attention', attention, type(block).__name__)
    check_flag('over_batch', over_batch, type(block).__name__)
    sizes = in_channels, channels, heads, reduction, over_batch
    block.add_module(f'maskgen{suffix}', MaskGenerator(*sizes))
    if attention:
        block.add_module(f'attgen{suffix}', AttentionGenerator(*sizes))


def gate_nets(block: nn.Module, suffix: str) -> GateNets:
    """The nets that :func:`add_gate_nets` gave."""
    return getattr(block, f'maskgen{suffix}'), getattr(block, f'attgen{suffix}', None)


def make_gate(nets: GateNets, pooled: Tensor) -> Gate:
    """Run them. pooled: ``[B, C_in, 1, 1]``."""
    mask, attention = nets
    return Gate(mask(pooled), None if attention is None else attention(pooled))


class MSGCConv2d(SelfGatedConv2d, nn.Conv2d):
    """Our layer-local form of MSGC, for any place that takes a ``conv_cfg``.

    The gates come from the layer's own pooled input, so that a tower that is shared over feature
    levels has gates per level and image. For the same reason their nets normalise each image by
    itself: levels have other statistics, and a head's batch may be of one.

    heads: groups of contiguous filters, of equal size where they divide `out_channels`.
    attention: also weigh the channels that are read. reduction: of the gate nets' hidden layer.
    Other arguments: ``nn.Conv2d``'s.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        *,
        heads: int = 4,
        attention: bool = False,
        reduction: int = 4,
        **kwargs,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **kwargs)
        reason = too_few_channels(in_channels, out_channels, heads, 'MSGCConv2d')
        if reason:
            raise ValueError(f'MSGCConv2d has {reason}')
        check_integer('reduction', reduction, 'MSGCConv2d')
        self.gate_pool = GatePool()
        add_gate_nets(
            self, '', in_channels, in_channels, heads, reduction, attention, over_batch=False
        )
        ragged = torch.arange(out_channels) * heads // out_channels
        assign = ragged if out_channels % heads else None
        self.register_buffer('assign', assign, persistent=False)
        self.sizes = None if assign is None else tuple(ragged.bincount().tolist())

    @classmethod
    def why_dense(cls, in_channels: int, out_channels: int, heads: int = 4, **_) -> str | None:
        """See :class:`GroupedConv2d`."""
        return too_few_channels(in_channels, out_channels, heads, cls.__name__)

    def init_gates(self) -> None:
        """Open."""
        for net in self.children():
            if isinstance(net, GateNet):
                net.init_weights()

    def mask_generators(self) -> dict[str, MaskGenerator]:
        """By the name, from here, of the convolution that is gated: this one."""
        return {'': self.maskgen}

    def decide(self, pooled: Tensor) -> Gate:
        """See :class:`SelfGatedConv2d`."""
        gate = make_gate(gate_nets(self, ''), pooled)
        return gate._replace(assign=self.assign, sizes=self.sizes)
