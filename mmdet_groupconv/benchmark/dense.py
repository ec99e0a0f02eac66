"""The dense network in the forms that a user could run instead of ours."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from mmdet.models.detectors.base import BaseDetector
from torch import Tensor, nn


class AbsentError(Exception):
    """A form that can't run here; says why."""


def compiled(model: nn.Module) -> nn.Module:
    """``torch.compile`` with weights frozen into the graph.

    Raises AbsentError where it doesn't work, as without a C++ compiler.
    """
    from torch._inductor import config

    def run(x: Tensor):
        with config.patch(freezing=True):
            return fast(x)

    fast = torch.compile(model)
    try:
        run(torch.randn(1, 3, 64, 64))
    except Exception as error:  # whatever the compiler stumbles over
        raise AbsentError(f'torch.compile: {type(error).__name__}') from error
    return run


def in_onnxruntime(model: nn.Module, x: Tensor, threads: int) -> Callable[[Tensor], list[Tensor]]:
    """A backbone in onnxruntime on the CPU, exported for the size of `x`.

    Raises AbsentError where the packages are missing or the export fails.
    """
    try:
        import onnx  # noqa: F401  (what torch exports with)
        import onnxruntime
    except ImportError as error:
        raise AbsentError(f'{error.name} is not installed') from error
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        path = str(Path(folder) / 'dense.onnx')
        try:
            torch.onnx.export(model, (x,), path, dynamo=False, opset_version=17)
        except Exception as error:  # exporters raise anything
            raise AbsentError(f'export to ONNX: {type(error).__name__}') from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, ['CPUExecutionProvider'])
    (entry,) = session.get_inputs()
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {entry.name: x.numpy()})]


class HeadOutputs(nn.Module):
    """A one-stage detector's maps before boxes are decoded, as a flat list."""

    def __init__(self, detector: BaseDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> list[Tensor]:
        """x: ``[B, 3, H, W]``."""
        return [y for maps in self.detector(x, mode='tensor') for y in maps]
