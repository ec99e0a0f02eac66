"""The dense network in the runtimes that a user could pick instead of ours."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

Runtime = Callable[[nn.Module, Tensor], Callable[[Tensor], object]]


class AbsentError(Exception):
    """A form that can't run here; says why."""


def compiled(model: nn.Module, x: Tensor) -> Callable[[Tensor], object]:
    """``torch.compile`` for the size of `x`, with weights frozen into the graph.

    Raises AbsentError where it doesn't work, as without a C++ compiler.
    """
    from torch._inductor import config

    # Not dynamic: a graph for any size is slower, and one for gradients has no frozen weights.
    fast = torch.compile(model, dynamic=False)

    @torch.no_grad()
    def run(x: Tensor) -> object:
        with config.patch(freezing=True):  # as an option of torch.compile it is half as fast
            return fast(x)

    try:
        run(x)
    except Exception as error:  # whatever the compiler stumbles over
        raise AbsentError(f'torch.compile: {type(error).__name__}') from error
    return run


def in_onnxruntime(model: nn.Module, x: Tensor) -> Callable[[Tensor], list[Tensor]]:
    """A network in onnxruntime on the CPU, with PyTorch's number of threads.

    Exported for the size of `x`, but for any batch. Outputs come as a flat list.

    Raises AbsentError where the packages are missing or the export fails.
    """
    try:
        from ..deploy.runtime import session
    except ImportError as error:
        raise AbsentError(f'{error.name} is not installed') from error
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        path = str(Path(folder) / 'dense.onnx')
        try:
            torch.onnx.export(
                model,
                (x,),
                path,
                dynamo=False,
                opset_version=17,
                input_names=['x'],
                dynamic_axes={'x': {0: 'batch'}},
            )
        except Exception as error:  # exporters raise anything
            raise AbsentError(f'export to ONNX: {type(error).__name__}') from error
        ready = session(path, torch.get_num_threads())
    return lambda x: [torch.from_numpy(y) for y in ready.run(None, {'x': x.numpy()})]
