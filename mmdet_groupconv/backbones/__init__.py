"""MMDetection's backbones with grouped blocks."""

from .conv_methods import (
    ConvMethodMobileNetV2,
    ConvMethodResNet,
    DGCMobileNetV2,
    DGCResNet,
    FixedGroupMobileNetV2,
    FixedGroupResNet,
    FLGCMobileNetV2,
    FLGCResNet,
    SGCMobileNetV2,
    SGCResNet,
)
from .grouped_mobilenet_v2 import TrimmedMobileNetV2
from .msgc_mobilenet_v2 import MSGCMobileNetV2
from .msgc_resnet import MSGCResNet

__all__ = [
    'ConvMethodMobileNetV2',
    'ConvMethodResNet',
    'DGCMobileNetV2',
    'DGCResNet',
    'FLGCMobileNetV2',
    'FLGCResNet',
    'FixedGroupMobileNetV2',
    'FixedGroupResNet',
    'MSGCMobileNetV2',
    'MSGCResNet',
    'SGCMobileNetV2',
    'SGCResNet',
    'TrimmedMobileNetV2',
]
