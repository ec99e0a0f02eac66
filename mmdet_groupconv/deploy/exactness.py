"""Whether a file gives what the network gives."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from ..layers import evaluating
from .detecting import Detecting
from .parts import RawOutputs
from .quantise import Quantised
from .runtime import Runtime, by_definition, session

TOLERANCE = 1e-3
# Of int8 and bf16, the median: sums in another order are rounded to another number, and where that
# lets other boxes through, these are far off. Or, if that is more, twice what int8 itself changes.
_ROUNDED_TOLERANCE = 0.02


class Comparison(NamedTuple):
    """See :class:`~mmdet_groupconv.deploy.Report`."""

    difference: float
    outputs: dict[str, tuple[int, ...]]


@torch.no_grad()
def compare(
    model: nn.Module,
    part: type[Detecting] | partial[RawOutputs],
    path: str | os.PathLike | ir.Model,
    image: Tensor,
    threads: int = 1,
) -> Comparison:
    """A file or graph in onnxruntime beside the network itself, on an image as the part takes it.

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
    differences = whole.differences([y.numpy() for y in expected], found)
    difference = float(np.max([of_output.max() for of_output in differences]))
    outputs = {name: y.shape for name, y in zip(whole.names, found, strict=True)}
    return Comparison(difference, outputs)


def check(path: str | os.PathLike, found: list[Comparison]) -> None:
    """Raise ValueError where one is off."""
    worst = float(np.max([comparison.difference for comparison in found]))  # NaN if one is
    if not worst <= TOLERANCE:
        raise ValueError(f'{path} is off by {worst:.1e}, expected at most {TOLERANCE:.0e}')


def check_runtime(
    path: str | os.PathLike,
    file: str | os.PathLike,
    graph: ir.Model,
    quantised: Quantised | None,
    runtime: Runtime,
    part: nn.Module,
    images: Sequence[Tensor],
    limit: float,
) -> None:
    """Raise ValueError where a runtime computes something else from a file than its graph says.

    path: what the file will be called. graph: in floats, before it was grouped; quantised: of int8.
    images: as the part takes them; one has few boxes, and some lie where rounding decides.
    """
    exact, run = file if quantised is None else quantised.model, runtime.open(file)[0]
    found, rounding = [], []
    for inputs in ({'images': image.numpy()} for image in images):
        expected = by_definition(exact, inputs)
        found.append(part.differences(expected, run(inputs)))
        if quantised is not None:
            rounding.append(part.differences(by_definition(graph, inputs), expected))
    if runtime.precision == 'fp32':
        off, most = _largest(np.max, found), TOLERANCE
    else:
        off, most = _largest(np.median, found), max(_ROUNDED_TOLERANCE, limit)
    if rounding:
        most = max(most, 2 * _largest(np.median, rounding))
    if not off <= most:
        raise ValueError(
            f'{path} is off by {off:.1e} in {runtime.name} in {runtime.precision}, expected at '
            f'most {most:.0e}'
        )


def _largest(statistic: Callable, differences: list[list[np.ndarray]]) -> float:
    """Of each output the statistic of all images, and of these the largest; NaN if one is."""
    outputs = zip(*differences, strict=True)
    pooled = (np.concatenate([found.ravel() for found in output]) for output in outputs)
    return float(np.max([statistic(found) for found in pooled]))
