"""ResNet with middle spectrum grouped convolutions (MSGC, arXiv 2304.06305, section 3)."""

from typing import ClassVar

from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers import Gate, GateNets, GatePool, MaskGenerator, add_gate_nets, gate_nets, make_gate
from ..layers.checks import check_integer
from .grouped_blocks import readable
from .grouped_resnet import GroupedResNet

_GATED_CONVS = dict(conv_cfg=dict(type='GroupedConv2d'))


class _GatedBlock(nn.Module):
    """What both residual blocks share: gates from the pooled input, then one conv after another.

    reduction: class attribute, how much narrower the gate nets' hidden layer is than the input.
    """

    reduction: int

    def _add_gates(
        self, inplanes: int, layout: list[tuple[int, int, bool]], over_batch: bool
    ) -> None:
        """layout: how each conv is gated, as (in_channels, heads, whether attention weighs)."""
        self.gate_pool = GatePool()
        self.gated = [str(number) for number in range(1, len(layout) + 1)]
        for suffix, (channels, heads, attention) in zip(self.gated, layout, strict=True):
            sizes = inplanes, channels, heads, self.reduction
            add_gate_nets(self, suffix, *sizes, attention, over_batch)
        # A plugin between two convs mixes channels: then nothing can be said to be unread.
        self.readers = readable(self, self.readers)

    def mask_generators(self) -> dict[str, MaskGenerator]:
        """By the name of the convolution that each gates."""
        return {f'conv{suffix}': getattr(self, f'maskgen{suffix}') for suffix in self.gated}

    def gate_nets(self) -> list[GateNets]:
        """One a conv; all look at the block's pooled input."""
        return [gate_nets(self, suffix) for suffix in self.gated]

    def gates(self, x: Tensor) -> list[Gate]:
        """One gate a conv, from the block's input. x: ``[B, inplanes, H, W]``."""
        pooled = self.gate_pool(x)
        return [make_gate(nets, pooled) for nets in self.gate_nets()]

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, inplanes, H, W]``. Returns ``[B, planes * expansion, H', W']``."""
        # Gates stay outside of the checkpoint: drawn once, and the MAC loss reaches their nets.
        gates = self.gates(x)
        if self.with_cp and x.requires_grad:
            out = checkpoint(self._residual, x, gates, use_reentrant=False)
        else:
            out = self._residual(x, gates)
        return self.relu(out)

    def _residual(self, x: Tensor, gates: list[Gate]) -> Tensor:
        out = x
        for suffix, gate in zip(self.gated, gates, strict=True):
            out = getattr(self, f'conv{suffix}')(out, gate)
            out = getattr(self, f'norm{suffix}')(out)
            if suffix != self.gated[-1]:
                out = self.relu(out)
            if getattr(self, 'with_plugins', False):
                out = self.forward_plugin(out, getattr(self, f'after_conv{suffix}_plugin_names'))
        return out + (x if self.downsample is None else self.downsample(x))


class MSGCBasicBlock(_GatedBlock, BasicBlock):
    """conv1 reads by one gate, conv2 by one a head; attention on both.

    heads: of conv2; divides `planes`. over_batch: see :class:`MSGCResNet`. Other arguments:
    MMDetection's ``BasicBlock``.
    """

    reduction = 4
    readers: ClassVar = {'conv2': ('conv1',)}

    def __init__(
        self, inplanes: int, planes: int, *, heads: int, attention: bool, over_batch: bool = True,
        **kwargs,
    ) -> None:  # fmt: skip
        BasicBlock.__init__(self, inplanes, planes, **{**kwargs, **_GATED_CONVS})
        layout = [(inplanes, 1, attention), (planes, heads, attention)]
        self._add_gates(inplanes, layout, over_batch)


class MSGCBottleneck(_GatedBlock, Bottleneck):
    """conv1 and conv3 read by one gate, conv2 by one a head; attention on conv2 alone.

    heads: of conv2; divides `planes`. over_batch: see :class:`MSGCResNet`. Other arguments:
    MMDetection's ``Bottleneck``.
    """

    reduction = 8
    readers: ClassVar = {'conv2': ('conv1',), 'conv3': ('conv2',)}

    def __init__(
        self, inplanes: int, planes: int, *, heads: int, attention: bool, over_batch: bool = True,
        **kwargs,
    ) -> None:  # fmt: skip
        Bottleneck.__init__(self, inplanes, planes, **{**kwargs, **_GATED_CONVS})
        layout = [(inplanes, 1, False), (planes, heads, attention), (planes, 1, False)]
        self._add_gates(inplanes, layout, over_batch)


@MODELS.register_module()
class MSGCResNet(GroupedResNet):
    """MMDetection's ``ResNet`` whose block convolutions read the channels that the image needs.

    heads: groups of the 3x3 convolution that is grouped in each block; divides the block's width.
    attention: also weigh the channels that are read (section 3.4). over_batch: whether gate nets
    normalise over the images of a batch, as published, or (ours) each image by itself: pooled maps
    of a few images of a kind differ by less than they drift from step to step, so that over batches
    gates of evaluation lag behind those of training.
    Other arguments and all state-dict keys: MMDetection's ``ResNet``; ``conv_cfg`` and ``dcn``,
    which would replace the gated convolutions, raise ValueError.
    """

    blocks = (MSGCBasicBlock, MSGCBottleneck)

    def __init__(
        self, depth: int, *, heads: int = 4, attention: bool = False, over_batch: bool = True,
        **kwargs,
    ) -> None:  # fmt: skip
        method = dict(heads=heads, attention=attention, over_batch=over_batch)
        super().__init__(depth, method, **kwargs)

    def _check_width(self, layer: str, width: int, heads: int, **_) -> None:
        check_integer('heads', heads, type(self).__name__)
        if width % heads:
            raise ValueError(f'heads={heads} does not divide out_channels={width} of {layer}.conv2')
