"""From what heads predict to boxes, in operations that an ONNX file can hold; one image at a time.

The same as MMDetection's ``predict_by_feat``, but for limits that a graph has to compute: how many
scores there are, how large the image is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RetinaHead, RPNHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

DenseHead = RetinaHead | RPNHead | ATSSHead | FCOSHead | GFLHead
_OTHERS = ATSSHead, FCOSHead, GFLHead  # exactly: heads derived from them predict otherwise


class Boxes(NamedTuple):
    """boxes: ``[N, 4]``, corners in pixels. scores, labels: ``[N]``. The highest score first."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


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
        _check_nms(head.test_cfg.nms, name)
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


class RoIBoxes(nn.Module):
    """What a standard RoI head makes of proposals: pooled by level, classified, refined.

    head: its extractor and its box head. Raises ValueError for other kinds of heads and extractors,
    and other ways to suppress boxes than NMS.
    """

    def __init__(self, head: StandardRoIHead) -> None:
        super().__init__()
        name = type(head).__name__
        if type(head) is not StandardRoIHead:
            raise ValueError(f'roi_head {name} is not known, expected a StandardRoIHead')
        extractor = head.bbox_roi_extractor
        if type(extractor) is not SingleRoIExtractor:
            raise ValueError(
                f'bbox_roi_extractor {type(extractor).__name__} of {name} is not known, expected a '
                'SingleRoIExtractor'
            )
        _check_nms(head.test_cfg.nms, name)
        self.head, self.cfg = head.bbox_head, head.test_cfg
        self.scale = extractor.finest_scale
        self.layers = [
            (layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned)
            for layer in extractor.roi_layers
        ]

    def forward(self, maps: list[Tensor], proposals: Tensor, size: Tensor) -> Boxes:
        """maps: ``[1, C, H, W]`` a level. proposals: ``[N, 4]``. size: see :class:`DenseBoxes`."""
        rois = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], dim=1)
        scores, deltas = self.head(self._pool(maps, rois))
        scores = scores.softmax(dim=-1)[:, :-1]  # the last class is background
        classes = scores.shape[1]
        deltas = deltas.reshape(-1, 4)
        if not self.head.reg_class_agnostic:
            proposals = proposals[:, None].expand(-1, classes, 4).reshape(-1, 4)
        boxes = clipped(self.head.bbox_coder, proposals, deltas, size)
        if self.head.reg_class_agnostic:
            boxes = boxes[:, None].expand(-1, classes, 4).reshape(-1, 4)
        labels = torch.arange(classes, device=scores.device).expand(scores.shape).reshape(-1)
        scores = scores.reshape(-1)
        keep = scores > self.cfg.score_thr
        kept = Boxes(boxes[keep], scores[keep], labels[keep])
        return suppressed(kept, kept.labels, self.cfg.nms, self.cfg.max_per_img)

    def _pool(self, maps: list[Tensor], rois: Tensor) -> Tensor:
        """``[N, C, h, w]``, each box from the level of its size."""
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        level = (side / self.scale + 1e-6).log2().floor().clamp(0, len(self.layers) - 1)
        pooled, order = [], []
        for number, (x, layer) in enumerate(zip(maps, self.layers, strict=False)):
            own = (level == number).nonzero()[:, 0]
            pooled.append(roi_align(x, rois[own], *layer))
            order.append(own)
        return torch.cat(pooled)[torch.cat(order).argsort()]


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


def highest(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The up to `most` highest of ``[N]``, and where they are."""
    if torch.jit.is_tracing():  # their number is the graph's to find out
        number = torch.minimum(scores.new_tensor(most), scores.new_tensor(scores.shape[0]))
        return scores.topk(number.to(torch.int64))
    return scores.topk(min(most, len(scores)))


def clipped(coder: Any, priors: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
    """Boxes within the image, ``[N, 4]``."""
    boxes = get_box_tensor(coder.decode(priors, deltas))
    return boxes.clamp(min=0).minimum(size) if coder.clip_border else boxes


def suppressed(boxes: Boxes, apart: Tensor, cfg: Any, most: int) -> Boxes:
    """Less those that overlap a better one of the same number in `apart`, ``[N]``."""
    if cfg.get('class_agnostic', False):
        apart = torch.zeros_like(apart)
    far = torch.cat([boxes.boxes.flatten(), boxes.boxes.new_zeros(1)]).max() + 1  # of none: 1
    shift = apart.to(boxes.boxes) * far
    keep = nms(boxes.boxes + shift[:, None], boxes.scores, cfg.iou_threshold)
    scores, order = highest(boxes.scores[keep], most)
    keep = keep[order]
    return Boxes(boxes.boxes[keep], scores, boxes.labels[keep])


def _check_nms(cfg: Any, owner: str) -> None:
    if cfg.get('type', 'nms') != 'nms':
        raise ValueError(f"test_cfg.nms of {owner} has type {cfg['type']!r}, expected 'nms'")
