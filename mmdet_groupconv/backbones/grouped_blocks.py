"""MMDetection's blocks with convolutions that make their own gates."""

from typing import ClassVar

from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.layers import InvertedResidual

from .checkpointing import GateKeepingCheckpoint


def readable(block, readers: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Those of `readers` whose sources no plugin of the block mixes on the way."""
    return {
        reader: sources
        for reader, sources in readers.items()
        if not any(getattr(block, f'after_{name}_plugin_names', ()) for name in sources)
    }


class GroupedBasicBlock(GateKeepingCheckpoint, BasicBlock):
    """grouped: the ``conv_cfg`` of both convolutions. Others: MMDetection's ``BasicBlock``."""

    readers: ClassVar = {'conv2': ('conv1',)}

    def __init__(self, inplanes: int, planes: int, *, grouped: dict, **kwargs) -> None:
        super().__init__(inplanes, planes, **{**kwargs, 'conv_cfg': grouped})


class GroupedBottleneck(GateKeepingCheckpoint, Bottleneck):
    """grouped: the ``conv_cfg`` of all three convolutions. Others: MMDetection's ``Bottleneck``."""

    readers: ClassVar = {'conv2': ('conv1',), 'conv3': ('conv2',)}

    def __init__(self, inplanes: int, planes: int, *, grouped: dict, **kwargs) -> None:
        super().__init__(inplanes, planes, **{**kwargs, 'conv_cfg': grouped})
        self.readers = readable(self, self.readers)


class GroupedInvertedResidual(GateKeepingCheckpoint, InvertedResidual):
    """grouped: the ``conv_cfg`` of the 1x1 convolutions. Others: ``InvertedResidual``'s."""

    def __init__(self, in_channels: int, out_channels: int, *, grouped: dict, **kwargs) -> None:
        # The depthwise one is left alone: its host groups it already.
        super().__init__(in_channels, out_channels, conv_cfg=grouped, **kwargs)
        self.readers = hidden_readers(self)


def hidden_readers(block: InvertedResidual) -> dict[str, tuple[str, ...]]:
    """Who computes the hidden channels that only the projecting convolution reads."""
    before = ['depthwise_conv.conv']
    if block.with_expand_conv:
        before.append('expand_conv.conv')
    return {} if block.with_se else {'linear_conv.conv': tuple(before)}
