"""MobileNetV2 with middle spectrum grouped convolutions (MSGC, arXiv 2304.06305, section 3)."""

from mmdet.models.layers import InvertedResidual
from mmdet.registry import MODELS
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..conv_cfg import replace_layer
from ..layers import Gate, GateNets, GatePool, MaskGenerator, add_gate_nets, gate_nets, make_gate
from ..layers.checks import check_integer
from .grouped_blocks import hidden_readers
from .grouped_mobilenet_v2 import GroupedMobileNetV2


class MSGCInvertedResidual(InvertedResidual):
    """The projecting convolution reads hidden channels by one gate a head, from the block's input.

    heads: divides `out_channels`. attention: also weigh what is read. over_batch: see
    :class:`~mmdet_groupconv.backbones.MSGCResNet`. Others: MMDetection's ``InvertedResidual``.
    """

    reduction = 4

    def __init__(
        self, in_channels: int, out_channels: int, mid_channels: int, *, heads: int,
        attention: bool, over_batch: bool = True, **kwargs,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, out_channels, mid_channels, **kwargs)
        check_integer('heads', heads, 'MSGCMobileNetV2')
        if out_channels % heads:
            raise ValueError(
                f'heads={heads} does not divide out_channels={out_channels} of a linear_conv'
            )
        replace_layer(self, 'linear_conv.conv', dict(type='GroupedConv2d'))
        self.gate_pool = GatePool()
        sizes = in_channels, mid_channels, heads, self.reduction
        add_gate_nets(self, '', *sizes, attention, over_batch)
        self.readers = hidden_readers(self)

    def mask_generators(self) -> dict[str, MaskGenerator]:
        """By the name of the convolution that is gated."""
        return {'linear_conv.conv': self.maskgen}

    def gate_nets(self) -> list[GateNets | None]:
        """One a convolution, None for those without; they look at the block's pooled input."""
        ungated = [None] * (2 if self.with_expand_conv else 1)
        return [*ungated, gate_nets(self, '')]

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, in_channels, H, W]``. Returns ``[B, out_channels, H', W']``."""
        # Outside of the checkpoint: drawn once, and the MAC loss reaches the gate nets.
        gate = make_gate(self.gate_nets()[-1], self.gate_pool(x))
        if self.with_cp and x.requires_grad:
            return checkpoint(self._project, x, gate, use_reentrant=False)
        return self._project(x, gate)

    def _project(self, x: Tensor, gate: Gate) -> Tensor:
        out = self.expand_conv(x) if self.with_expand_conv else x
        out = self.depthwise_conv(out)
        if self.with_se:
            out = self.se(out)
        out = self.linear_conv.conv(out, gate)
        if self.linear_conv.with_norm:
            out = self.linear_conv.norm(out)
        return x + self.drop_path(out) if self.with_res_shortcut else out


@MODELS.register_module()
class MSGCMobileNetV2(GroupedMobileNetV2):
    """MMDetection's ``MobileNetV2`` whose blocks read the hidden channels that the image needs.

    heads: groups of each block's projecting convolution. attention: also weigh the channels that
    are read (section 3.4). over_batch: see :class:`~mmdet_groupconv.backbones.MSGCResNet`. The last
    convolution stays dense. Other arguments: ``MobileNetV2``'s.
    """

    block = MSGCInvertedResidual

    def __init__(
        self, *, heads: int = 4, attention: bool = False, over_batch: bool = True, **kwargs
    ) -> None:
        super().__init__(dict(heads=heads, attention=attention, over_batch=over_batch), **kwargs)
