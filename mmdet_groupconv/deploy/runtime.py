"""What runs ONNX files on the CPU: onnxruntime, OpenVINO."""

import os
from collections.abc import Callable

import numpy as np
import onnxruntime
from onnx import ModelProto

_PRECISIONS = dict(onnxruntime=('fp32',), openvino=('fp32', 'bf16'))


def session(model: ModelProto | str | os.PathLike, threads: int) -> onnxruntime.InferenceSession:
    """To run a model or a file. threads: 0 for as many as there are cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    source = model.SerializeToString() if isinstance(model, ModelProto) else os.fspath(model)
    return onnxruntime.InferenceSession(source, options, ['CPUExecutionProvider'])


class RunningFile:
    """An ONNX file in a runtime, on the CPU: ``file(images)`` is the list of its outputs.

    runtime: 'onnxruntime' or 'openvino'. precision: 'fp32', or 'bf16', which OpenVINO alone
    computes in. threads: 0 for as many as there are cores. about: the file's metadata.

    Raises FileNotFoundError, ImportError where the runtime is not installed, and ValueError for a
    precision that it doesn't have and for a file that it can't read.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        runtime: str = 'onnxruntime',
        precision: str = 'fp32',
        threads: int = 0,
    ) -> None:
        if precision not in _PRECISIONS[runtime]:
            expected = ' or '.join(_PRECISIONS[runtime])
            raise ValueError(f'precision {precision} in {runtime}, expected {expected}')
        if not os.path.isfile(path):
            raise FileNotFoundError(f'file {path} not found')
        open_file = _in_openvino if runtime == 'openvino' else _in_onnxruntime
        try:
            self._run, self.about = open_file(path, precision, threads)
        except ImportError:
            raise
        except Exception as error:  # the runtimes' own kinds
            raise ValueError(f'file {path} can not be read by {runtime}: {error}') from error

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """images: as the file takes them."""
        return self._run(images)


def _in_onnxruntime(path: str | os.PathLike, _: str, threads: int) -> tuple[Callable, dict]:
    ready = session(path, threads)
    about = dict(ready.get_modelmeta().custom_metadata_map)
    return lambda images: ready.run(None, {'images': images}), about


def _in_openvino(path: str | os.PathLike, precision: str, threads: int) -> tuple[Callable, dict]:
    try:
        import openvino
    except ModuleNotFoundError as error:
        message = "openvino not found, it comes with: pip install 'mmdet_groupconv[openvino]'"
        raise ImportError(message) from error
    core = openvino.Core()
    model = core.read_model(os.fspath(path))
    # Left to itself it would take bfloat16 wherever the CPU has it.
    settings = dict(INFERENCE_PRECISION_HINT={'fp32': 'f32', 'bf16': 'bf16'}[precision])
    if threads:
        settings['INFERENCE_NUM_THREADS'] = threads
    try:
        ready = core.compile_model(model, 'CPU', settings)
    except RuntimeError as error:
        if 'dynamic weights' not in str(error):
            raise
        raise ValueError(
            'its gates come with the image, and OpenVINO computes no weights; '
            'write it with --freeze'
        ) from error
    about = dict(model.rt_info.items()).get('framework', {})

    def run(images: np.ndarray) -> list[np.ndarray]:
        found = ready(images)
        return [np.array(found[output]) for output in ready.outputs]

    return run, {key: str(about[key].value) for key in about}
