"""MMDetection's backbones with grouped blocks."""

from mmengine.registry import MODELS

from ..layers import GroupedConv2d
from .msgc_resnet import MSGCResNet

# The root registry: `build_conv_layer` finds it there from every scope.
MODELS.register_module('GroupedConv2d', module=GroupedConv2d)

__all__ = ['MSGCResNet']
