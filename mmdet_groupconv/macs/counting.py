"""Counting the MACs of networks and detectors, for given sizes and given images."""

import torch
from mmdet.models.detectors import BaseDetector
from torch import Tensor, nn

from ..layers import evaluating
from .detectors import forward_detector, unmetered_macs
from .meter import MacMeter
from .report import LayerMacs, MacReport


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
        if is_detector:
            count_proposals(meter, model)
        report = meter.take().plain()
        if not is_detector:
            return report
        others = unmetered_macs(model, x).items()
        return MacReport(
            [*report.layers, *(LayerMacs(name, done, always_on=done) for name, done in others)]
        )


def count_proposals(meter: MacMeter, detector: nn.Module) -> None:
    """Take a RoI head as called for as many boxes as the detector's test settings let through.

    How many it got is chance where the images are none, and another number in training, which
    samples some. Nothing changes for detectors without one.
    """
    if proposals := (getattr(detector, 'test_cfg', None) or {}).get('rpn'):
        meter.count_for('roi_head.bbox_head', proposals['max_per_img'])
