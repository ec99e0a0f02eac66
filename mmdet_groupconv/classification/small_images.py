"""Stems for images of 32x32 pixels, of which ImageNet's would leave next to nothing."""

from mmdet.models.backbones.mobilenet_v2 import MobileNetV2
from mmdet.models.backbones.resnet import ResNet
from torch import nn


def take_small_images(backbone: nn.Module) -> None:
    """Change a backbone in place to the form that CIFAR-10 is trained with.

    ResNet: ``conv1`` is 3x3 of stride 1, without pooling after it (outputs at strides 1, 2, 4, 8).
    MobileNetV2: the stem and the second stage at stride 1 (the last output at stride 8).

    Raises ValueError for another backbone, and for a ResNet with a deep stem.
    """
    if isinstance(backbone, ResNet) and not backbone.deep_stem:
        stem = backbone.conv1
        backbone.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, 3, 1, 1, bias=False)
        backbone.maxpool = nn.Identity()
    elif isinstance(backbone, MobileNetV2):
        first = backbone.layer2[0]
        for conv in (backbone.conv1.conv, first.depthwise_conv.conv):
            conv.stride = (1, 1)
        backbone.conv1.stride = first.depthwise_conv.stride = (1, 1)
    else:
        raise ValueError(
            f'small_images with {type(backbone).__name__}, expected a ResNet with the plain stem '
            'or a MobileNetV2'
        )
