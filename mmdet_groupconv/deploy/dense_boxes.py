"""What one-stage heads and RPNs predict, as boxes."""

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RetinaHead, RPNHead
from torch import Tensor, nn

from .boxes import Boxes, check_nms, clipped, highest, suppressed

DenseHead = RetinaHead | RPNHead | ATSSHead | FCOSHead | GFLHead
_OTHERS = ATSSHead, FCOSHead, GFLHead  # exactly: heads derived from them predict otherwise


class DenseBoxes(nn.Module):
    """What a one-stage head or an RPN predicts.

    head: its prior generator, coder and ``test_cfg`` count. Raises ValueError for heads that
    predict otherwise, scores that are no sigmoids and other ways to suppress boxes than NMS.
    """

    def __init__(self, head: DenseHead) -> None:
        super().__init__()
        name = type(head).__name__
        if not isinstance(head, RetinaHead | RPNHead) and type(head) not in _OTHERS:
            known = ', '.join(['RPNHead', *(cls.__name__ for cls in _OTHERS)])
            raise ValueError(f'head {name} is not known, expected a RetinaHead, {known}')
        if not head.use_sigmoid_cls:
            raise ValueError(f'head {name} has no sigmoids, expected such scores')
        check_nms(head.test_cfg.nms, name)
        self.coder, self.cfg = head.bbox_coder, head.test_cfg
        self.classes = head.cls_out_channels
        self.strides = [stride[0] for stride in head.prior_generator.strides]
        self.is_rpn = isinstance(head, RPNHead)
        self.integral = getattr(head, 'integral', None)
        for level, priors in enumerate(_first_priors(head)):
            self.register_buffer(f'priors{level}', priors)

    def forward(self, predicted: Sequence[list[Tensor]], size: Tensor) -> Boxes:
        """predicted: a level each, scores ``[1, A * classes, H, W]``, deltas ``[1, A * D, H, W]``
        and, of some heads, factors of scores ``[1, A, H, W]``. size: ``[4]``, the image's width and
        height, twice."""
        found = [
            self._level(level, size, *maps)
            for level, maps in enumerate(zip(*predicted, strict=True))
        ]
        boxes, of_boxes, labels, *factors = (torch.cat(parts) for parts in zip(*found, strict=True))
        levels = torch.cat([torch.full_like(part[2], level) for level, part in enumerate(found)])
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        least = self.cfg.get('min_bbox_size', -1)
        threshold = self.cfg.get('score_thr', 0.0)
        keep = of_boxes > threshold
        if least >= 0:
            keep = keep & (width > least) & (height > least)
        apart = levels if self.is_rpn else labels
        of_boxes = of_boxes * factors[0] if factors else of_boxes  # which the threshold isn't for
        kept = Boxes(boxes[keep], of_boxes[keep], labels[keep])
        return suppressed(kept, apart[keep], self.cfg.nms, self.cfg.max_per_img)

    def _level(
        self, level: int, size: Tensor, scores: Tensor, deltas: Tensor, *factors: Tensor
    ) -> tuple[Tensor, ...]:
        best, order = highest(_flat(scores), self.cfg.nms_pre)  # the order of their sigmoids
        places, labels = order // self.classes, order % self.classes
        priors = self._priors(level, places, scores.shape[3])
        each = deltas.shape[1] // len(getattr(self, f'priors{level}'))
        deltas = _flat(deltas).reshape(-1, each)[places]
        if self.integral is not None:  # a distribution for each side, in strides
            deltas = self.integral(deltas) * self.strides[level]
        boxes = clipped(self.coder, priors, deltas, size)
        return boxes, best.sigmoid(), labels, *(_flat(x)[places].sigmoid() for x in factors)

    def _priors(self, level: int, places: Tensor, width: int) -> Tensor:
        """``[N, 2 or 4]``, those at places of the prior generator's: row by row, all of a place."""
        priors, stride = getattr(self, f'priors{level}'), self.strides[level]
        pixels = places // len(priors)
        shifts = [pixels % width * stride, pixels // width * stride] * (priors.shape[1] // 2)
        return torch.stack(shifts, dim=-1) + priors[places % len(priors)]


def _first_priors(head: DenseHead) -> list[Tensor]:
    """Those of each level's first place: anchors ``[A, 4]`` or, where boxes are distances from a
    point, points ``[A, 2]``."""
    generator = head.prior_generator
    if isinstance(head, FCOSHead):
        return [torch.full((1, 2), generator.offset * stride[0]) for stride in generator.strides]
    if isinstance(head, GFLHead):
        return [head.anchor_center(anchors) for anchors in generator.base_anchors]
    return list(generator.base_anchors)


def _flat(maps: Tensor) -> Tensor:
    """``[1, C, H, W]`` -> ``[H * W * C]``."""
    return maps.permute(0, 2, 3, 1).reshape(-1)
