"""Whole detectors whose networks another runtime runs, up to the final boxes."""

import copy

from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.detectors.base import BaseDetector
from torch import Tensor, nn

from .dense import AbsentError, Runtime


def in_runtime(detector: BaseDetector, runtime: Runtime, images: Tensor) -> BaseDetector:
    """A copy of a detector that leaves its convolutional and linear layers to `runtime`.

    Backbone, neck and the dense head are one network there, a RoI head's layers another; what lies
    between and behind (proposals, RoIAlign, decoding, NMS) stays PyTorch's.

    Raises AbsentError for detectors of other kinds.
    """
    one_stage = type(detector).predict is SingleStageDetector.predict
    if not one_stage and type(detector).predict is not TwoStageDetector.predict:
        raise AbsentError(f'{type(detector).__name__} is no plain detector of one or two stages')
    head_name = 'bbox_head' if one_stage else 'rpn_head'
    head = getattr(detector, head_name)
    # In evaluation mode: exporters put all modules back into the mode of the outermost one.
    maps = runtime(_Maps(detector, head).eval(), images)
    fast = copy.deepcopy(detector)
    outputs: list = []

    def extract_feat(images: Tensor) -> tuple[Tensor, ...]:
        found = list(maps(images))
        levels = len(found) // 3
        outputs[:] = found[levels : 2 * levels], found[2 * levels :]
        return tuple(found[:levels])

    fast.extract_feat = extract_feat
    getattr(fast, head_name).forward = lambda features: tuple(outputs)
    if not one_stage:
        extractor = detector.roi_head.bbox_roi_extractor
        roi = images.new_zeros(2, extractor.out_channels, *extractor.roi_layers[0].output_size)
        run = runtime(detector.roi_head.bbox_head, roi)
        fast.roi_head.bbox_head.forward = lambda x: tuple(run(x))
    return fast


class _Maps(nn.Module):
    """Features, then the head's two outputs for each level, flat."""

    def __init__(self, detector: BaseDetector, head: nn.Module) -> None:
        super().__init__()
        self.detector, self.head = detector, head

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.detector.extract_feat(images)
        first, second = self.head(features)
        return (*features, *first, *second)
