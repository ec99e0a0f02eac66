"""The parts of a detector that a file can be of, and how files of them are checked."""

import numpy as np
import torch
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.detectors.base import BaseDetector
from torch import Tensor, nn

EXAMPLE = 96, 128  # height and width of images to trace with
_NAMES = ('cls_score', 'bbox_pred')


class RawOutputs(nn.Module):
    """A network up to its maps, as a flat list; `names` are theirs after a call.

    A backbone's maps; what a one-stage detector's head predicts for each level; a two-stage
    detector's neck's maps and what its RPN predicts. heads: False for the neck's maps alone.

    Raises ValueError for another kind of detector.
    """

    def __init__(self, model: nn.Module, heads: bool = True) -> None:
        super().__init__()
        known = (SingleStageDetector, TwoStageDetector)
        if isinstance(model, BaseDetector) and not isinstance(model, known):
            raise ValueError(f'{type(model).__name__} is no one-stage or two-stage detector')
        self.model, self.heads, self.names = model, heads, []

    def example(self) -> Tensor:
        """Images to trace with."""
        return torch.randn(2, 3, *EXAMPLE, generator=torch.Generator().manual_seed(0))

    def image(self, pixels: Tensor) -> Tensor:
        """Of pixels ``[1, 3, H, W]``, RGB uint8, what the file takes: normalised, not padded."""
        prepare = getattr(self.model, 'data_preprocessor', None)
        x = pixels.float()
        if prepare is None:
            return (x - 128) / 64
        x = x if prepare._channel_conversion else x.flip(1)
        return ((x.to(prepare.mean) - prepare.mean) / prepare.std).cpu()

    def differences(self, expected: list[np.ndarray], found: list[np.ndarray]) -> list[np.ndarray]:
        """Of the values of each output, relative to its largest one."""
        return [_relative(y, z) for y, z in zip(expected, found, strict=True)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: ``[B, 3, H, W]``, normalised."""
        maps = self._maps(images)
        self.names = list(maps)
        return list(maps.values())

    def _maps(self, images: Tensor) -> dict[str, Tensor]:
        if not isinstance(self.model, BaseDetector):
            return _levels('feature', self.model(images))
        features = self.model.extract_feat(images)
        if not self.heads:
            return _levels('feature', features)
        if isinstance(self.model, SingleStageDetector):
            found = self.model.bbox_head(features)
            names = _NAMES if len(found) == 2 else [f'head_{i}' for i in range(len(found))]
            return _by_level(names, found)
        maps = _levels('feature', features)
        if self.model.with_rpn:
            names = [f'rpn_{name}' for name in _NAMES]
            maps.update(_by_level(names, self.model.rpn_head(features)))
        return maps


def _levels(name: str, maps) -> dict[str, Tensor]:
    maps = [maps] if isinstance(maps, Tensor) else maps
    return {f'{name}_{level}': x for level, x in enumerate(maps)}


def _by_level(names: list[str], found: tuple) -> dict[str, Tensor]:
    by_name = [_levels(name, maps) for name, maps in zip(names, found, strict=True)]
    return {key: x for maps in by_name for key, x in maps.items()}


def _relative(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    if expected.shape != found.shape:
        return np.full(1, np.inf)
    scale = float(np.abs(expected).max()) or 1.0
    return np.abs(expected - found).ravel() / scale
