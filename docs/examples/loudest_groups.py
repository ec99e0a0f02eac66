"""A method by image in one file: every group of filters reads the channels that are loudest now.

custom_imports = dict(imports=['mmdet_groupconv', 'loudest_groups'])
model = dict(backbone=dict(type='LoudestGroupResNet', keep=0.5))
"""

import torch
from mmdet.registry import MODELS
from mmengine.registry import MODELS as LAYERS
from torch import Tensor, nn

from mmdet_groupconv.backbones import ConvMethodResNet
from mmdet_groupconv.layers import Gate, GatePool, SelfGatedConv2d


@LAYERS.register_module()
class LoudestGroupConv2d(SelfGatedConv2d, nn.Conv2d):
    """Groups of filters that read the channels of the largest means, weighed by a learned taste.

    keep: share of the channels that a group reads, in (0, 1]. groups: how many groups.
    """

    def __init__(self, *sizes, keep: float = 0.5, groups: int = 4, **kwargs) -> None:
        super().__init__(*sizes, **kwargs)
        self.read = max(round(keep * self.in_channels), 1)
        self.gate_pool = GatePool()
        self.taste = nn.Parameter(torch.ones(groups, self.in_channels))

    def prepare(self, x: Tensor) -> Tensor:
        """What comes before the convolution: loud channels are damped."""
        return x * torch.rsqrt(1 + x.abs())

    def decide(self, pooled: Tensor) -> Gate:
        """The gate for the pooled input, ``[B, in_channels, 1, 1]``."""
        loudness = pooled.flatten(1)[:, None].abs() * self.taste  # [B, groups, in_channels]
        threshold = loudness.topk(self.read, dim=-1).values[..., -1:]
        return Gate(
            (loudness >= threshold).to(pooled.dtype), strength=self.taste[None].expand_as(loudness)
        )


@MODELS.register_module()
class LoudestGroupResNet(ConvMethodResNet):
    """MMDetection's ResNet with these layers in its blocks, and all its arguments."""

    def __init__(self, depth: int, *, keep: float = 0.5, groups: int = 4, **kwargs) -> None:
        grouped = dict(type='LoudestGroupConv2d', keep=keep, groups=groups)
        super().__init__(depth, dict(grouped=grouped), **kwargs)
