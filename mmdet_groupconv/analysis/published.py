"""What the papers counted besides the backbone."""

from torch import Tensor, nn


def with_classifier(backbone: nn.Module, classes: int) -> nn.Module:
    """A ResNet with global pooling and a linear layer, the network of the papers' tables.

    Its forward maps ``[B, 3, H, W]`` to ``[B, classes]``.
    """
    return _Classifier(backbone, classes)


class _Classifier(nn.Module):
    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(backbone.feat_dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.backbone(x)[-1]).flatten(1))
