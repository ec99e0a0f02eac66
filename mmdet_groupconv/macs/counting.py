"""Counting the MACs of networks and detectors, for given sizes and given images."""

import torch
from mmdet.models.detectors import BaseDetector
from torch import Tensor, nn

from ..layers import MacMeter, Macs, evaluating
from .detectors import forward_detector, unmetered_macs
from .report import LayerRow, MacReport, to_report


@torch.no_grad()
def count_macs(
    model: nn.Module, input_size: tuple[int, int], images: Tensor | None = None
) -> MacReport:
    """Count the MACs of a backbone, a classifier or a whole detector.

    A detector's RoI head counts for as many boxes as its test settings let through. What else does
    multiply-accumulates in a detector (attention, say) is found by MMEngine's analyser.

    input_size: (height, width) in pixels. images: ``[B, 3, height, width]``, normalised as for the
    model, whose gates are used; without it gates that depend on the image count as fully open.

    Raises ValueError where the images have another size than input_size.
    """
    if images is not None and tuple(images.shape[-2:]) != tuple(input_size):
        raise ValueError(
            f'images have size {tuple(images.shape[-2:])}, expected input_size={tuple(input_size)}'
        )
    x = images
    if x is None:
        x = next(model.parameters()).new_zeros(1, 3, *input_size)
    is_detector = isinstance(model, BaseDetector)
    with evaluating(model):
        with MacMeter(model) as meter:
            forward_detector(model, x) if is_detector else model(x)
        if images is None:
            meter.open_gates()
        macs = meter.take()
        if is_detector:
            _count_all_boxes(macs, model, len(x))
        report = to_report(macs, model)
        if is_detector:
            others = unmetered_macs(model, x).items()
            report.layers += [LayerRow(name, done, always_on=done) for name, done in others]
    return report


def _count_all_boxes(macs: Macs, detector: BaseDetector, images: int) -> None:
    # How many boxes a RoI head gets in this image is chance: count as many as it may get.
    for row in macs.layers:
        if row.name.startswith('roi_head.bbox_head.') and row.batch:
            scale = detector.test_cfg['rpn']['max_per_img'] * images / row.batch
            row.dense *= scale
            row.strength *= scale
