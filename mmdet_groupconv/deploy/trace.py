"""From a network to the ONNX graph that PyTorch traces."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.detectors.base import BaseDetector
from torch import Tensor, nn

from ..compiler.compact import compact
from ..compiler.unit import Unit
from ..layers import evaluating
from .traced import traceable

OPSET = 17
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


def trace(model: nn.Module, heads: bool = True) -> onnx.ModelProto:
    """The graph of :class:`RawOutputs`; height and width are free.

    Norms are folded. Convolutions whose connections are fixed are dense ones with zeros, and the
    batch is free. Where gates come with the image, the graph finds out which channels to gather,
    for one image at a time.
    """
    raw = RawOutputs(model, heads)
    fast = compact(model).cpu()
    by_image = any(unit.per_image for unit in fast.modules() if isinstance(unit, Unit))
    ready = RawOutputs(traceable(fast), heads).eval()
    seeded = torch.Generator().manual_seed(0)
    images = torch.randn(1 if by_image else 2, 3, 96, 128, generator=seeded)
    axes = {2: 'height', 3: 'width'} if by_image else {0: 'batch', 2: 'height', 3: 'width'}
    with torch.no_grad(), evaluating(model):
        raw(images.to(next(model.parameters()).device))  # for the names
    with torch.no_grad(), _quiet():
        file = io.BytesIO()
        torch.onnx.export(
            ready,
            (images,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=['images'],
            output_names=raw.names,
            dynamic_axes={'images': axes},
        )
    return onnx.load_from_string(file.getvalue())


@contextmanager
def _quiet() -> Iterator[None]:
    """What PyTorch says of its exporter, and of sizes that are fixed for good reasons."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
