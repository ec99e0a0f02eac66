"""The classifiers that checkpoints are converted for."""

from typing import NamedTuple

from mmdet.models.backbones.resnet import ResNet
from mmdet.registry import MODELS
from torch import nn

from ..layers import SGCLinear

METHODS = ('dense', 'msgc', 'dgc', 'flgc', 'sgc')
HOSTS = (*(f'resnet{depth}' for depth in ResNet.arch_settings), 'mobilenetv2')
NETWORKS = tuple(f'{method}-{host}' for method in METHODS for host in HOSTS)


class Network(NamedTuple):
    """A backbone with a linear classifier on top.

    method: one of METHODS. host: 'resnet' or 'mobilenetv2'. depth, base_channels: of a ResNet.
    widen_factor: of a MobileNetV2. heads: of MSGC and DGC. attention: of MSGC. groups: of FLGC.
    masked_fc: whether SGC masks the classifier, too. What doesn't apply is None.
    """

    method: str
    host: str
    num_classes: int
    depth: int | None = None
    base_channels: int | None = None
    widen_factor: float | None = None
    heads: int | None = None
    attention: bool | None = None
    groups: int | None = None
    masked_fc: bool | None = None

    @property
    def name(self) -> str:
        """One of NETWORKS."""
        return f'{self.method}-{self.host}{self.depth or ""}'

    def config(self) -> dict:
        """The backbone's, with the last stage as output; sizes only where they are unusual."""
        prefix = '' if self.method == 'dense' else self.method.upper()
        if self.host == 'resnet':
            config = dict(type=f'{prefix}ResNet', depth=self.depth)
            if self.base_channels != 64:
                config['base_channels'] = self.base_channels
        else:
            config = dict(type=f'{prefix}MobileNetV2', out_indices=(7,))
            if self.widen_factor != 1:
                config['widen_factor'] = self.widen_factor
        method = dict(heads=self.heads, attention=self.attention, groups=self.groups)
        return config | {key: value for key, value in method.items() if value is not None}

    def build(self) -> nn.ModuleDict:
        """The network, with keys ``backbone.*`` and ``fc.*``.

        Raises ValueError where the method can't group a host of these sizes.
        """
        backbone = MODELS.build(self.config())
        width = backbone.feat_dim if self.host == 'resnet' else backbone.out_channel
        linear = SGCLinear if self.masked_fc else nn.Linear
        return nn.ModuleDict(dict(backbone=backbone, fc=linear(width, self.num_classes)))
