"""MMDetection's backbones with grouped blocks."""

from .conv_methods import (
    ConvMethodMobileNetV2,
    ConvMethodResNet,
    DGCMobileNetV2,
    DGCResNet,
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
    'FixedGroupResNet',
    'MSGCMobileNetV2',
    'MSGCResNet',
    'SGCMobileNetV2',
    'SGCResNet',
    'TrimmedMobileNetV2',
]
