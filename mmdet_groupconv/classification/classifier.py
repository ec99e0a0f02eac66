"""A backbone with a classifier on top."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModel, initialize
from torch import Tensor, nn

from ..layers import evaluating
from ..layers.checks import check_flag, check_integer, check_number
from .small_images import take_small_images


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Backbone, global average pooling, one linear layer: what backbones are pretrained in.

    State-dict keys are ``backbone.*`` and ``fc.*``; a detector loads the first with
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.

    backbone: a config or a module; of its outputs the last is used.
    linear_cfg: of ``fc``; ``dict(type='SGCLinear')`` lets SGC prune it, too.
    label_smoothing: share of the target that goes to all classes alike. dropout: before ``fc``.
    small_images: for 32x32 images, see
    :func:`~mmdet_groupconv.classification.small_images.take_small_images`.
    fc_init_cfg: of ``fc`` alone, to begin with a classifier's weights.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        num_classes: int,
        linear_cfg: dict | None = None,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        small_images: bool = False,
        fc_init_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        own, share = 'ImageClassifier', 'a share in [0, 1)'
        check_integer('num_classes', num_classes, own, 2)
        check_number('label_smoothing', label_smoothing, own, share, lambda v: 0 <= v < 1)
        check_number('dropout', dropout, own, share, lambda v: 0 <= v < 1)
        check_flag('small_images', small_images, own)
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.backbone = backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)
        if small_images:
            take_small_images(self.backbone)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        linear = dict(in_features=_width(self.backbone), out_features=num_classes)
        self.fc = MODELS.build(dict(linear_cfg or dict(type='Linear'), **linear))
        self.fc_init_cfg = fc_init_cfg

    def init_weights(self) -> None:
        """As configured; where `init_cfg` says nothing, ``fc`` is small and normal."""
        again = self.is_init
        super().init_weights()
        if not again and not self.init_cfg:
            nn.init.normal_(self.fc.weight, std=0.01)
            nn.init.zeros_(self.fc.bias)
        if not again and self.fc_init_cfg:
            initialize(self.fc, self.fc_init_cfg)

    def forward(
        self, inputs: Tensor, data_samples: Tensor | None = None, mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[Tensor]:
        """inputs: ``[B, 3, H, W]``, normalised. data_samples: the labels, ``[B]``, for the loss.

        mode: 'tensor' for logits ``[B, num_classes]``, 'loss' for a dict of the loss and the
        batch's accuracy, 'predict' for a list of each image's scores, ``[num_classes]``.
        """
        features = self.pool(self.backbone(inputs)[-1]).flatten(1)
        logits = self.fc(self.dropout(features))
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            return list(logits.softmax(dim=1))
        if mode != 'loss':
            raise ValueError(f"mode={mode!r}, expected 'tensor', 'loss' or 'predict'")
        right = (logits.detach().argmax(dim=1) == data_samples).float().mean()
        smoothing = self.label_smoothing
        loss = F.cross_entropy(logits.float(), data_samples, label_smoothing=smoothing)
        return dict(loss_cls=loss, accuracy=100 * right)


@torch.no_grad()
def _width(backbone: nn.Module) -> int:
    # Not every backbone says how many channels its last output has.
    with evaluating(backbone):
        return backbone(next(backbone.parameters()).new_zeros(1, 3, 64, 64))[-1].size(1)
