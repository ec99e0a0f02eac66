"""Small copies of what a data loader yields."""

import mmcv
import numpy as np
from mmdet.models.detectors import BaseDetector
from torch import nn

_SIDE = 192  # pixels


def thumbnails(model: nn.Module, batch: dict, number: int) -> list[np.ndarray]:
    """The first `number` images of a batch before they are normalised, ``[H, W, 3]`` RGB uint8."""
    images = [image[:3].permute(1, 2, 0).cpu().numpy() for image in batch['inputs'][:number]]
    if isinstance(model, BaseDetector):  # which reads images as mmcv does, in BGR
        images = [image[..., ::-1] for image in images]
    return [_small(image) for image in images]


def _small(image: np.ndarray) -> np.ndarray:
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    whole = np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))
    return mmcv.imrescale(whole, scale, interpolation='area') if scale < 1 else whole
