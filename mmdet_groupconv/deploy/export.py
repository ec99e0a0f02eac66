"""A network as an ONNX file that was checked against it."""

import os
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from mmdet.models.detectors.base import BaseDetector
from onnx import helper
from torch import Tensor, nn

from ..checkpoints import whole_file
from ..layers import evaluating
from .detecting import Detecting
from .parts import RawOutputs
from .plan import choose_ways, race
from .regroup import regroup
from .runtime import session
from .shapes import name_sizes
from .trace import Traced, trace

TOLERANCE = 1e-3
PARTS = ('detector', 'head', 'neck', 'backbone')


class Report(NamedTuple):
    """What was found when a file was written.

    difference: from the network, the largest: of maps, relative to the largest value of an output;
    of boxes, in scores, or what their IoU lacks of 1. seconds: that an image takes in onnxruntime.
    ungrouped: the same for the graph with its grouped convolutions as dense ones with zeros, which
    is how long the dense network takes; None where gates come with the image. outputs: shape by
    name.
    """

    difference: float
    seconds: float
    ungrouped: float | None
    outputs: dict[str, tuple[int, ...]]


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike,
    shape: tuple[int, int] = (800, 1344),
    threads: int = 1,
    part: str = 'detector',
    image: Tensor | None = None,
    about: Mapping[str, str] | None = None,
) -> Report:
    """Write a backbone or a detector, checked at `shape` and half of it.

    shape: height and width that layers are timed with; the file takes any. threads: likewise. part:
    of a detector, one of PARTS: 'detector' takes pixels (uint8, RGB, one image) and gives boxes,
    scores and labels in them; others take normalised images and give maps, up to the head's (of two
    stages, the RPN's), the neck's or the backbone's. image: ``[1, 3, H, W]``, uint8, RGB, to
    compare outputs for, at both sizes; noise if not given. about: kept in the file's metadata.

    Raises ValueError where the file's outputs are off by more than `TOLERANCE`, or where the
    network's own overflow, or for a detector that the part is not known of; no file is left then.
    """
    model = model.backbone if part == 'backbone' and isinstance(model, BaseDetector) else model
    wrap = _part(model, part)
    traced = trace(model, wrap)
    if image is None:
        seeded = torch.Generator().manual_seed(0)
        image = torch.randint(256, (1, 3, *shape), generator=seeded, dtype=torch.uint8)
    best, seconds, ungrouped = _faster(traced, shape, threads, _input(wrap(model), image, shape))
    helper.set_model_props(best, dict(about or {}))
    onnx.checker.check_model(best)
    with whole_file(path) as temporary:
        onnx.save(best, temporary)
        whole, half_size = (
            compare(model, wrap, temporary, _input(wrap(model), image, size), threads)
            for size in (shape, half(shape))
        )
        found = float(np.max([whole.difference, half_size.difference]))  # NaN if one is
        if not found <= TOLERANCE:
            raise ValueError(f'{path} is off by {found:.1e}, expected at most {TOLERANCE:.0e}')
    return Report(found, seconds, ungrouped, whole.outputs)


def _part(model: nn.Module, part: str) -> type[Detecting] | partial[RawOutputs]:
    if part not in PARTS:
        raise ValueError(f'part={part!r}, expected one of {", ".join(PARTS)}')
    if part == 'detector' and isinstance(model, BaseDetector):
        return Detecting
    return partial(RawOutputs, heads=part == 'head')


def _input(part: nn.Module, pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """An image, resized, as a part takes it."""
    resized = F.interpolate(pixels.float(), size, mode='bilinear').round().to(torch.uint8)
    return part.image(resized)


def _faster(
    traced: Traced, shape: tuple[int, int], threads: int, image: Tensor
) -> tuple[onnx.ModelProto, float, float | None]:
    """With its convolutions grouped or as it was; seconds of both."""
    grouped = regroup(traced.graph, choose_ways(traced.graph, shape, threads))
    models = [grouped, traced.graph]
    for model in models:
        name_sizes(model)
    seconds, ungrouped = race(models, {'images': image.numpy()}, threads)
    if traced.by_image:
        return grouped, seconds, None
    best = grouped if seconds < ungrouped else traced.graph
    return best, min(seconds, ungrouped), ungrouped


def half(shape: tuple[int, int]) -> tuple[int, int]:
    """About half of a shape, in steps of 32, which all strides divide."""
    return tuple(max(side // 64, 2) * 32 for side in shape)


class Comparison(NamedTuple):
    """See :class:`Report`."""

    difference: float
    outputs: dict[str, tuple[int, ...]]


@torch.no_grad()
def compare(
    model: nn.Module,
    part: type[Detecting] | partial[RawOutputs],
    path: str | os.PathLike,
    image: Tensor,
    threads: int = 1,
) -> Comparison:
    """A file in onnxruntime beside the network itself, on an image as the part takes it.

    Raises ValueError where the network's outputs are not finite.
    """
    whole = part(model)
    with evaluating(model):
        device = next(model.parameters()).device
        expected = [y.cpu() for y in whole(image.to(device))]
    if not all(y.isfinite().all() for y in expected):
        size = 'x'.join(map(str, image.shape[2:]))
        raise ValueError(f'{type(model).__name__} overflows on this image of {size}, try another')
    found = session(path, threads).run(None, {'images': image.numpy()})
    difference = whole.difference([y.numpy() for y in expected], found)
    outputs = {name: y.shape for name, y in zip(whole.names, found, strict=True)}
    return Comparison(difference, outputs)
