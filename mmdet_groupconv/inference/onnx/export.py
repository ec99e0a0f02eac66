"""A network as an ONNX file that was checked against it."""

import os
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from .graph import has_branches
from .plan import choose_ways
from .regroup import regroup
from .shapes import name_sizes, session
from .trace import RawOutputs, trace

TOLERANCE = 1e-3


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike,
    shape: tuple[int, int] = (800, 1344),
    threads: int = 1,
) -> float:
    """Write a backbone or a detector, up to its raw outputs, and return how far it is off.

    That is the largest difference to ``model.eval()``, relative to the largest value of the output,
    over random images of two sizes, `shape` and about half of it.

    shape: height and width that layers are timed with; the file takes any. threads: likewise.

    Raises ValueError where it is off by more than `TOLERANCE`; no file is left then.
    """
    exported = trace(model)
    if not has_branches(exported.graph):
        exported = regroup(exported, choose_ways(exported, shape, threads))
        name_sizes(exported)
    onnx.checker.check_model(exported)
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        onnx.save(exported, temporary)
        found = max(difference(model, temporary, size, threads) for size in (shape, half(shape)))
        if not found <= TOLERANCE:
            raise ValueError(f'{path} is off by {found:.1e}, expected at most {TOLERANCE:.0e}')
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return found


def half(shape: tuple[int, int]) -> tuple[int, int]:
    """About half of a shape, in steps of 32, which all strides divide."""
    return tuple(max(side // 64, 2) * 32 for side in shape)


@torch.no_grad()
def difference(
    model: nn.Module, path: str | os.PathLike, size: tuple[int, int], threads: int = 1
) -> float:
    """The largest between a file in onnxruntime and the network itself, relative to the largest
    value of the output, on a random image of the given size.
    """
    training = {module: module.training for module in model.modules()}
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        expected = RawOutputs(model).eval()(image)
    finally:
        for module, mode in training.items():
            module.training = mode
    ready = session(onnx.load(path), threads)
    found = ready.run(None, {'images': image.numpy()})
    return max(_relative(y.numpy(), z) for y, z in zip(expected, found, strict=True))


def _relative(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float('inf')
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(expected - found).max()) / scale
