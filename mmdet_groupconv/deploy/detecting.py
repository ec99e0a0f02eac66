"""A whole detector as one network: pixels in, boxes out."""

from typing import ClassVar

import numpy as np
import torch
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from torch import Tensor, nn
from torchvision.ops import box_iou

from .dense_boxes import DenseBoxes
from .parts import EXAMPLE
from .roi_boxes import RoIBoxes

_ALIKE = 0.9  # IoU from which two boxes are one
_LAST = 0.01  # of scores: ties between proposals let through one or another of the last boxes


class Detecting(nn.Module):
    """A detector with what MMDetection does before and behind its network, for one image.

    names: of the outputs. Raises ValueError for a detector, or a head, of another kind.
    """

    names = ('boxes', 'scores', 'labels')
    axes: ClassVar = {name: {0: 'number'} for name in names}

    def __init__(self, detector: SingleStageDetector | TwoStageDetector) -> None:
        super().__init__()
        if not isinstance(detector, SingleStageDetector | TwoStageDetector):
            raise ValueError(f'{type(detector).__name__} is no one-stage or two-stage detector')
        self.detector = detector
        prepare = detector.data_preprocessor
        self.register_buffer('mean', prepare.mean[None])
        self.register_buffer('std', prepare.std[None])
        # Images are RGB here, and BGR where MMDetection reads them.
        self.flip = not prepare._channel_conversion
        self.divisor = prepare.pad_size_divisor
        self.two_stages = isinstance(detector, TwoStageDetector)
        self.dense = DenseBoxes(detector.rpn_head if self.two_stages else detector.bbox_head)
        self.roi = RoIBoxes(detector.roi_head) if self.two_stages else None

    def example(self) -> Tensor:
        """An image to trace with."""
        seeded = torch.Generator().manual_seed(0)
        return torch.randint(256, (1, 3, *EXAMPLE), generator=seeded, dtype=torch.uint8)

    def image(self, pixels: Tensor) -> Tensor:
        """Of pixels ``[1, 3, H, W]``, RGB uint8, what the file takes: the same."""
        return pixels

    def differences(self, expected: list[np.ndarray], found: list[np.ndarray]) -> list[np.ndarray]:
        """In scores, or what an IoU lacks of 1, of each box that either has.

        Of slivers, whose IoU says little, the distance of corners in pixels where that is less.
        Where one has no box of its class like the other's, that is how far it is above the last
        ones, by score, that were let through.
        """
        return [_missed(expected, found), _missed(found, expected)]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image: ``[1, 3, H, W]``, RGB, 0 to 255. Returns ``[N, 4]``, ``[N]``, ``[N]``."""
        height, width = image.shape[2:]
        size = torch.stack([torch.as_tensor(side) for side in (width, height, width, height)])
        maps = self.detector.extract_feat(self._prepared(image))
        head = self.detector.rpn_head if self.two_stages else self.detector.bbox_head
        found = self.dense(head(maps), size.to(self.mean))
        if self.roi is not None:
            found = self.roi(maps, found.boxes, size.to(self.mean))
        return tuple(found)

    def _prepared(self, image: Tensor) -> Tensor:
        x = image.to(self.mean.dtype)
        if self.flip:
            x = x.flip(1)
        x = (x - self.mean) / self.std
        down, across = (-side % self.divisor for side in image.shape[2:])
        return nn.functional.pad(x, (0, across, 0, down))


def _missed(expected: list[np.ndarray], found: list[np.ndarray]) -> np.ndarray:
    boxes, scores, labels = map(torch.from_numpy, expected)
    others, their_scores, their_labels = map(torch.from_numpy, found)
    if not len(boxes):
        return np.zeros(1)
    if not len(others):
        return scores.numpy()
    overlap = box_iou(boxes, others) * (labels[:, None] == their_labels)
    best, which = overlap.max(dim=1)
    least = min(float(scores.min()), float(their_scores.min()))
    distance = (boxes - others[which]).abs().max(dim=1).values
    change = torch.maximum((1 - best).minimum(distance), (scores - their_scores[which]).abs())
    gone = (scores - least - _LAST).clamp(min=0)
    return torch.where(best >= _ALIKE, change, gone).numpy()
