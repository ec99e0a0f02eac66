"""A network as an ONNX file that was checked against it."""

import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import onnx
import onnx_ir as ir
import torch
import torch.nn.functional as F
from mmdet.models.detectors.base import BaseDetector
from torch import Tensor, nn

from ..checkpoints import whole_file
from .detecting import Detecting
from .exactness import check, check_runtime, compare
from .parts import RawOutputs
from .plan import choose_ways, race
from .quantise import LIMIT, Quantised, quantise
from .regroup import regroup
from .relabel import relabel
from .runtime import Runtime
from .shapes import name_sizes
from .trace import Traced, trace
from .whole_numbers import give_whole_numbers, pad_whole_numbers

COMPARED = 8  # images that a detector in bf16 is checked on
PARTS = ('detector', 'head', 'neck', 'backbone')


class Report(NamedTuple):
    """What was found when a file was written.

    difference: from the network, the largest: of maps, relative to the largest value of an output;
    of boxes, in scores, or what their IoU lacks of 1. seconds: that an image takes in the runtime.
    ungrouped: the same for the graph with its grouped convolutions as dense ones with zeros, which
    is how long the dense network takes, but for outputs that are put in order; None where gates
    come with the image. outputs: shape by name. quantised: of int8.
    """

    difference: float
    seconds: float
    ungrouped: float | None
    outputs: dict[str, tuple[int, ...]]
    quantised: Quantised | None = None

    def figures(
        self, path: str | os.PathLike, part: str, shape: Iterable[int], runtime: Runtime
    ) -> dict:
        """For JSON, with what the file at `path` was written for; times in ms."""
        found = dict(
            part=part,
            shape=list(shape),
            runtime=runtime.name,
            precision=runtime.precision,
            threads=runtime.threads,
            bytes=os.path.getsize(path),
            milliseconds=1000 * self.seconds,
            dense_milliseconds=None if self.ungrouped is None else 1000 * self.ungrouped,
            difference=self.difference,
            outputs=self.outputs,
        )
        if self.quantised is not None:
            found.update(change=self.quantised.change, stay_float=self.quantised.stay_float)
        return found


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike,
    shape: tuple[int, int] = (800, 1344),
    runtime: Runtime | None = None,
    part: str = 'detector',
    image: Tensor | None = None,
    about: Mapping[str, str] | None = None,
    images: Iterable[Tensor] = (),
    limit: float = LIMIT,
) -> Report:
    """Write a backbone or a detector, checked at `shape` and half of it.

    shape: height and width that layers are timed with; the file takes any. runtime: likewise, and
    the precision that it is for; onnxruntime in float32 with one thread if not given. part:
    of a detector, one of PARTS: 'detector' takes pixels (uint8, RGB, one image) and gives boxes,
    scores and labels in them; others take normalised images and give maps, up to the head's (of two
    stages, the RPN's), the neck's or the backbone's. image: ``[1, 3, H, W]``, uint8, RGB, to
    compare outputs for, at both sizes; noise if not given. about: kept in the file's metadata.
    images: likewise, of any sizes, that int8 is calibrated on, and that a detector in bf16 is
    checked on, the first COMPARED of them. limit: how much of their variance int8 may change
    predictions by; layers stay float until it is met. Infinite for weights that mean nothing.

    In onnxruntime the file's outputs are those of the network, within the tolerance of
    :mod:`~mmdet_groupconv.deploy.exactness`; an int8 file's are those of the graph that was
    quantised, which in turn was compared with the network. In the runtime they are what the file
    says.

    Raises ValueError where outputs are off by more than that, where the network's own overflow,
    for a detector that the part is not known of, and for int8 without images or with gates that
    come with the image; no file is left then.
    """
    runtime = runtime or Runtime(threads=1)
    runtime.check()
    model = model.backbone if part == 'backbone' and isinstance(model, BaseDetector) else model
    wrap = _part(model, part)
    traced = trace(model, wrap)
    traced = traced._replace(graph=relabel(traced.graph))
    if image is None:
        seeded = torch.Generator().manual_seed(0)
        image = torch.randint(256, (1, 3, *shape), generator=seeded, dtype=torch.uint8)
    inputs = [_input(wrap(model), image, size) for size in (shape, half(shape))]
    quantised = None
    if traced.by_image and (runtime.name, runtime.precision) != ('onnxruntime', 'fp32'):
        raise ValueError(
            f'gates come with the image, and so do weights, which {runtime.precision} in '
            f'{runtime.name} can not have: it needs --freeze'
        )
    if runtime.precision == 'int8':
        check(path, [compare(model, wrap, traced.graph, x, runtime.threads) for x in inputs])
        if not images:
            raise ValueError('int8 without images, expected some to calibrate on')
        calibration = [wrap(model).image(pixels).numpy() for pixels in images]
        quantised = quantise(traced.graph, calibration, runtime, limit)
    best, seconds, ungrouped = _faster(traced, quantised, runtime, inputs[0])
    best.metadata_props.update(about or {})
    with whole_file(path) as temporary:
        ir.save(best, temporary)
        onnx.checker.check_model(temporary)
        found = [compare(model, wrap, temporary, x, runtime.threads) for x in inputs]
        if quantised is None:
            check(path, found)
        if quantised is not None or runtime.name != 'onnxruntime':
            compared = inputs[:1]
            if wrap is Detecting and runtime.precision == 'bf16':
                compared = [*images][:COMPARED] or compared  # pixels are what it takes
            graphs = traced.graph, quantised
            check_runtime(path, temporary, *graphs, runtime, wrap(model), compared, limit)
    worst = max(comparison.difference for comparison in found)
    return Report(worst, seconds, ungrouped, found[0].outputs, quantised)


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
    traced: Traced,
    quantised: Quantised | None,
    runtime: Runtime,
    image: Tensor,
) -> tuple[ir.Model, float, float | None]:
    """With its convolutions grouped or as it was; seconds of it, and as it was."""
    in_integers = None if quantised is None else quantised.model
    source = in_integers or traced.graph
    ways = choose_ways(traced.graph, image.numpy(), runtime, in_integers)
    if in_integers is not None:
        pad_whole_numbers(in_integers)
        give_whole_numbers(in_integers)
    models = [regroup(source, these) for these in ([ways, {}] if ways else [{}])]
    for model in models:
        name_sizes(model)
    seconds = race(models, {'images': image.numpy()}, runtime)
    if traced.by_image:
        return models[0], seconds[0], None
    best = models[seconds.index(min(seconds))]
    return best, min(seconds), seconds[-1]


def half(shape: tuple[int, int]) -> tuple[int, int]:
    """About half of a shape, in steps of 32, which all strides divide."""
    return tuple(max(side // 64, 2) * 32 for side in shape)
