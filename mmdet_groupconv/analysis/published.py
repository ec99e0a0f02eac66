"""What the papers counted besides the backbone."""

import torch
from torch import Tensor, nn

from .macs import evaluating


def with_classifier(backbone: nn.Module, classes: int) -> nn.Module:
    """A backbone with global pooling and a linear layer, the network of the papers' tables.

    Its forward maps ``[B, 3, H, W]`` to ``[B, classes]``, from the last of the backbone's outputs.
    """
    return _Classifier(backbone, classes)


class _Classifier(nn.Module):
    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(_width(backbone), classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.backbone(x)[-1]).flatten(1))


@torch.no_grad()
def _width(backbone: nn.Module) -> int:
    # Not every backbone says how many channels its last output has.
    with evaluating(backbone):
        return backbone(next(backbone.parameters()).new_zeros(1, 3, 64, 64))[-1].size(1)
