"""A network as an ONNX file that was checked against it."""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import ModelProto, helper
from torch import Tensor, nn

from ..checkpoints import whole_file
from ..layers import evaluating
from .plan import choose_ways, race
from .regroup import regroup
from .runtime import session
from .shapes import name_sizes, takes_one_image
from .trace import RawOutputs, trace

TOLERANCE = 1e-3


class Report(NamedTuple):
    """What was found when a file was written.

    difference: from the network, the largest, relative to the largest value of an output.
    seconds: that an image takes in onnxruntime. ungrouped: the same for the graph with its
    grouped convolutions as dense ones with zeros, which is how long the dense network takes; None
    where gates come with the image. outputs: shape by name.
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
    heads: bool = True,
    image: Tensor | None = None,
    about: Mapping[str, str] | None = None,
) -> Report:
    """Write a backbone or a detector, up to its raw outputs, checked at `shape` and half of it.

    shape: height and width that layers are timed with; the file takes any. threads: likewise.
    heads: False for a detector's neck's maps alone. image: ``[1, 3, H, W]``, normalised, to compare
    outputs for, at both sizes; noise if not given. about: kept in the file's metadata.

    Raises ValueError where the file's outputs are off by more than `TOLERANCE`, or where the
    network's own overflow; no file is left then.
    """
    traced = trace(model, heads)
    if image is None:
        image = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    best, seconds, ungrouped = _faster(
        traced, shape, threads, F.interpolate(image, shape, mode='bilinear')
    )
    helper.set_model_props(best, dict(about or {}))
    onnx.checker.check_model(best)
    with whole_file(path) as temporary:
        onnx.save(best, temporary)
        whole, part = (
            compare(model, temporary, F.interpolate(image, size, mode='bilinear'), threads, heads)
            for size in (shape, half(shape))
        )
        found = float(np.max([whole.difference, part.difference]))  # NaN if one is
        if not found <= TOLERANCE:
            raise ValueError(f'{path} is off by {found:.1e}, expected at most {TOLERANCE:.0e}')
    return Report(found, seconds, ungrouped, whole.outputs)


def _faster(
    traced: ModelProto, shape: tuple[int, int], threads: int, image: Tensor
) -> tuple[ModelProto, float, float | None]:
    """With its convolutions grouped or as it was; seconds of both."""
    grouped = regroup(traced, choose_ways(traced, shape, threads))
    models = [grouped, traced]
    for model in models:
        name_sizes(model)
    seconds, ungrouped = race(models, {'images': image.numpy()}, threads)
    if takes_one_image(traced):
        return grouped, seconds, None
    return (grouped if seconds < ungrouped else traced), min(seconds, ungrouped), ungrouped


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
    path: str | os.PathLike,
    image: Tensor,
    threads: int = 1,
    heads: bool = True,
) -> Comparison:
    """A file in onnxruntime beside the network itself, on an image ``[1, 3, H, W]``.

    Raises ValueError where the network's outputs are not finite.
    """
    raw = RawOutputs(model, heads)
    with evaluating(model):
        device = next(model.parameters()).device
        expected = [y.cpu() for y in raw(image.to(device))]
    if not all(y.isfinite().all() for y in expected):
        size = 'x'.join(map(str, image.shape[2:]))
        raise ValueError(f'{type(model).__name__} overflows on this image of {size}, try another')
    found = session(path, threads).run(None, {'images': image.numpy()})
    differences = [_relative(y.numpy(), z) for y, z in zip(expected, found, strict=True)]
    outputs = {name: y.shape for name, y in zip(raw.names, found, strict=True)}
    return Comparison(float(np.max(differences)), outputs)


def _relative(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float('inf')
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(expected - found).max()) / scale
