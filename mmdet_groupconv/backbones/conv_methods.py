"""ResNet and MobileNetV2 with methods that live in one convolution: DGC, FLGC, SGC, plain groups.

Every argument of the parents and all their state-dict keys are kept. ``conv_cfg`` and ``dcn``,
which would replace the grouped convolutions, raise ValueError.
"""

from mmdet.registry import MODELS
from torch import nn

from .grouped_blocks import GroupedBasicBlock, GroupedBottleneck, GroupedInvertedResidual
from .grouped_mobilenet_v2 import GroupedMobileNetV2
from .grouped_resnet import GroupedResNet


class ConvMethodResNet(GroupedResNet):
    """Base of ResNets whose method is a layer: ``method = dict(grouped=dict(type=LAYER, ...))``."""

    blocks = (GroupedBasicBlock, GroupedBottleneck)


class ConvMethodMobileNetV2(GroupedMobileNetV2):
    """The same of MobileNetV2s."""

    block = GroupedInvertedResidual

    def __init__(self, method: dict, **kwargs) -> None:
        super().__init__(method, last_conv_cfg=method['grouped'], **kwargs)


@MODELS.register_module()
class DGCResNet(ConvMethodResNet):
    """Dynamic group convolution (arXiv 2007.04242) in the blocks, shortcut convolutions included.

    heads, gate_factor, squeeze_rate, pre_norm: see :class:`~mmdet_groupconv.layers.DGCConv2d`.
    """

    def __init__(
        self, depth: int, *, heads: int = 4, gate_factor: float = 0.45, squeeze_rate: int = 16,
        pre_norm: bool = True, **kwargs,
    ) -> None:  # fmt: skip
        super().__init__(depth, _dgc(heads, gate_factor, squeeze_rate, pre_norm), **kwargs)

    def make_res_layer(self, **kwargs) -> nn.Module:
        """One stage; its ``conv_cfg`` is the shortcut's."""
        return super().make_res_layer(**{**kwargs, 'conv_cfg': self._method['grouped']})


@MODELS.register_module()
class FixedGroupResNet(ConvMethodResNet):
    """Plain group convolution in the blocks, for comparison; shortcuts stay dense.

    groups: a convolution with fewer channels stays dense too.
    """

    def __init__(self, depth: int, *, groups: int = 4, **kwargs) -> None:
        super().__init__(depth, _named('FixedGroupConv2d', groups=groups), **kwargs)


@MODELS.register_module()
class FLGCResNet(ConvMethodResNet):
    """Fully learnable group convolution (arXiv 1904.00346) in the blocks; shortcuts stay dense.

    groups: a convolution with fewer channels stays dense.
    """

    def __init__(self, depth: int, *, groups: int = 4, **kwargs) -> None:
        super().__init__(depth, _named('FLGCConv2d', groups=groups), **kwargs)


@MODELS.register_module()
class SGCResNet(ConvMethodResNet):
    """Self-grouping convolution (SG-CNN, 2020) in the blocks; shortcuts stay dense, as published.

    groups: clusters of filters that a pruning step forms.
    """

    def __init__(self, depth: int, *, groups: int = 16, **kwargs) -> None:
        super().__init__(depth, _named('SGCConv2d', groups=groups), **kwargs)


@MODELS.register_module()
class DGCMobileNetV2(ConvMethodMobileNetV2):
    """Dynamic group convolution (arXiv 2007.04242) in the 1x1 convolutions.

    heads, gate_factor, squeeze_rate, pre_norm: see :class:`~mmdet_groupconv.layers.DGCConv2d`.
    """

    def __init__(
        self, *, heads: int = 4, gate_factor: float = 0.45, squeeze_rate: int = 16,
        pre_norm: bool = True, **kwargs,
    ) -> None:  # fmt: skip
        super().__init__(_dgc(heads, gate_factor, squeeze_rate, pre_norm), **kwargs)


@MODELS.register_module()
class FixedGroupMobileNetV2(ConvMethodMobileNetV2):
    """Plain group convolution in the 1x1 convolutions, for comparison.

    groups: a convolution with fewer channels stays dense.
    """

    def __init__(self, *, groups: int = 4, **kwargs) -> None:
        super().__init__(_named('FixedGroupConv2d', groups=groups), **kwargs)


@MODELS.register_module()
class FLGCMobileNetV2(ConvMethodMobileNetV2):
    """Fully learnable group convolution (arXiv 1904.00346) in the 1x1 convolutions.

    groups: a convolution with fewer channels stays dense.
    """

    def __init__(self, *, groups: int = 4, **kwargs) -> None:
        super().__init__(_named('FLGCConv2d', groups=groups), **kwargs)


@MODELS.register_module()
class SGCMobileNetV2(ConvMethodMobileNetV2):
    """Self-grouping convolution (SG-CNN, 2020) in the 1x1 convolutions.

    groups: clusters of filters that a pruning step forms.
    """

    def __init__(self, *, groups: int = 16, **kwargs) -> None:
        super().__init__(_named('SGCConv2d', groups=groups), **kwargs)


def _named(layer: str, **arguments) -> dict:
    return dict(grouped=dict(type=layer, **arguments))


def _dgc(heads: int, gate_factor: float, squeeze_rate: int, pre_norm: bool) -> dict:
    arguments = dict(gate_factor=gate_factor, squeeze_rate=squeeze_rate, pre_norm=pre_norm)
    return _named('DGCConv2d', heads=heads, **arguments)
