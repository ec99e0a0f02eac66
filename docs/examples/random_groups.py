"""A fifth method in one file: every filter reads a random share of the channels.

Name the file in a config, and the method is there for backbones, necks and heads, with MAC counts,
pictures, compact inference and ONNX export:

    custom_imports = dict(imports=['mmdet_groupconv', 'random_groups'])
    model = dict(backbone=dict(type='RandomGroupResNet', keep=0.5))
    custom_hooks = [dict(type='MACRatioHook')]
"""

import torch
from mmdet.registry import MODELS
from mmengine.registry import MODELS as LAYERS
from torch import Tensor, nn

from mmdet_groupconv.backbones import ConvMethodResNet
from mmdet_groupconv.layers import Gate, SelfGatedConv2d


@LAYERS.register_module()
class RandomGroupConv2d(SelfGatedConv2d, nn.Conv2d):
    """Groups of filters that read random channels, drawn once.

    keep: share of the channels that a group reads, in (0, 1]. groups: how many groups.
    """

    static_gate = True  # all images share the gate

    def __init__(self, *sizes, keep: float = 0.5, groups: int = 4, **kwargs) -> None:
        super().__init__(*sizes, **kwargs)
        if not 0 < keep <= 1:
            raise ValueError(f'keep={keep!r} of RandomGroupConv2d, expected a share in (0, 1]')
        self.register_buffer('mask', torch.ones(1, groups, self.in_channels))
        self.keep = keep
        self.init_gates()

    def init_gates(self) -> None:
        """Draw the channels anew; hosts call it when they initialise their weights."""
        order = torch.rand_like(self.mask).argsort(dim=-1)
        self.mask.copy_(order < round(self.keep * self.in_channels))

    def gate(self, x: Tensor) -> Gate:
        """The equation's gate, ``[1, groups, in_channels]``; filters are shared out evenly."""
        return Gate(self.mask)


@MODELS.register_module()
class RandomGroupResNet(ConvMethodResNet):
    """MMDetection's ResNet with these layers in its blocks, and all its arguments."""

    def __init__(self, depth: int, *, keep: float = 0.5, groups: int = 4, **kwargs) -> None:
        grouped = dict(type='RandomGroupConv2d', keep=keep, groups=groups)
        super().__init__(depth, dict(grouped=grouped), **kwargs)
