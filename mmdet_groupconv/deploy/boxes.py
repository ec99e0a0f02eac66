"""Boxes and their scores, in operations that an ONNX file can hold; one image at a time.

The same as MMDetection's ``predict_by_feat``, but for limits that a graph has to compute: how many
scores there are, how large the image is.
"""

from typing import Any, NamedTuple

import torch
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor
from torchvision.ops import nms


class Boxes(NamedTuple):
    """boxes: ``[N, 4]``, corners in pixels. scores, labels: ``[N]``. The highest score first."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


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


def check_nms(cfg: Any, owner: str) -> None:
    """Raise ValueError for another way to suppress boxes than NMS."""
    if cfg.get('type', 'nms') != 'nms':
        raise ValueError(f"test_cfg.nms of {owner} has type {cfg['type']!r}, expected 'nms'")
