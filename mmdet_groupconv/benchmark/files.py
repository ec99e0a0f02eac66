"""Networks as the files that users would deploy, in onnxruntime and OpenVINO."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .bench import Bench
from .dense import AbsentError

RUNTIMES = dict(fp32=('onnxruntime', 'openvino'), bf16=('openvino',), int8=('openvino',))


def file_name(runtime: str, precision: str) -> str:
    """What a form is called in tables."""
    return runtime if precision == 'fp32' else f'{runtime} {precision}'


def in_file(bench: Bench, model: nn.Module, runtime: str, precision: str) -> Callable[[], object]:
    """A network in a file that was made fast for a runtime, run on the bench's images.

    Of a detector from pixels to boxes. int8 is calibrated on these images, and no layer stays float
    for accuracy: weights are random.

    Raises AbsentError where packages are missing or the network can't be written.
    """
    try:
        from ..deploy import Runtime, export_onnx
        from ..deploy.runtime import RunningFile
    except ImportError as error:
        raise AbsentError(f'{error.name} is not installed') from error
    if bench.device.type != 'cpu' or bench.amp or (bench.part == 'detector' and bench.batch > 1):
        raise AbsentError('float32 on the CPU only, detectors one image at a time')
    pixels = bench.pixels
    how = Runtime(runtime, precision, torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        path = Path(folder) / 'network.onnx'
        try:
            export_onnx(
                model,
                path,
                bench.shape,
                how,
                bench.part,
                image=pixels[:1],
                images=[pixels[:1]],
                limit=float('inf'),
            )
            run = RunningFile(path, how)
        except (ImportError, ValueError) as error:
            raise AbsentError(str(error)) from error
    images = pixels.numpy() if bench.part == 'detector' else bench.images.numpy()
    return lambda: run(images)
