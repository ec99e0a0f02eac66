"""What runs ONNX files on the CPU: onnxruntime, OpenVINO."""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import ModelProto

PRECISIONS = dict(onnxruntime=('fp32', 'int8'), openvino=('fp32', 'bf16', 'int8'))
_HINTS = dict(fp32='f32', bf16='bf16', int8='f32')  # of what is not int8 in the file itself

Model = ir.Model | ModelProto | str | os.PathLike
Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


class Runtime(NamedTuple):
    """How files are run.

    name: 'onnxruntime' or 'openvino'. precision: 'fp32', 'bf16', which OpenVINO alone computes in,
    or 'int8', for files that were written for it. threads: 0 for as many as there are cores.
    """

    name: str = 'onnxruntime'
    precision: str = 'fp32'
    threads: int = 0

    @classmethod
    def of_file(cls, path: str | os.PathLike) -> 'Runtime':
        """What tools/export.py made a file for; the first one for other files."""
        if not os.path.isfile(path):
            raise FileNotFoundError(f'file {path} not found')
        try:
            entries = onnx.load(path, load_external_data=False).metadata_props
        except DecodeError as error:
            raise ValueError(f'file {path} is no ONNX file') from error
        about = {entry.key: entry.value for entry in entries}
        return cls(about.get('runtime', cls().name), about.get('precision', cls().precision))

    def check(self) -> None:
        """Raise ValueError for a precision it doesn't have, ImportError where it's not there."""
        if self.precision not in PRECISIONS[self.name]:
            expected = ' or '.join(PRECISIONS[self.name])
            raise ValueError(f'precision {self.precision} in {self.name}, expected {expected}')
        if self.name == 'openvino':
            _openvino()

    @property
    def is_native(self) -> bool:
        """Whether this CPU computes in that precision, not only stores it."""
        if self.name == 'onnxruntime' or self.precision == 'fp32':
            return True
        able = _openvino().Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        return self.precision.upper() in able

    def open(self, model: Model) -> tuple[Run, dict[str, str]]:
        """What computes the outputs, in their order, of inputs by name; and the metadata."""
        open_model = _in_openvino if self.name == 'openvino' else _in_onnxruntime
        return open_model(model, self)


def session(model: Model, threads: int = 0, optimised: bool = True) -> onnxruntime.InferenceSession:
    """To run a model or a file. threads: 0 for as many as there are cores.

    optimised: False for node by node as it is written, which is ready sooner.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(_source(model), options, ['CPUExecutionProvider'])


def by_definition(model: Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What a model or a file computes node by node in floats: what runtimes are checked against."""
    return session(model, optimised=False).run(None, dict(inputs))


class RunningFile:
    """An ONNX file that runs: ``file(images)`` is the list of its outputs.

    about: the file's metadata.

    Raises FileNotFoundError, ValueError for a file that can't be read, and as
    :meth:`Runtime.check`.
    """

    def __init__(self, path: str | os.PathLike, runtime: Runtime) -> None:
        runtime.check()
        if not os.path.isfile(path):
            raise FileNotFoundError(f'file {path} not found')
        try:
            self._run, self.about = runtime.open(path)
        except Exception as error:  # the runtimes' own kinds
            raise ValueError(f'file {path} can not be read by {runtime.name}: {error}') from error

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """images: as the file takes them."""
        return self._run({'images': images})


def _source(model: Model) -> bytes | str:
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    return model.SerializeToString() if isinstance(model, ModelProto) else os.fspath(model)


def _in_onnxruntime(model: Model, runtime: Runtime) -> tuple[Run, dict[str, str]]:
    ready = session(model, runtime.threads)
    about = dict(ready.get_modelmeta().custom_metadata_map)
    return lambda inputs: ready.run(None, dict(inputs)), about


def _in_openvino(model: Model, runtime: Runtime) -> tuple[Run, dict[str, str]]:
    core = _openvino().Core()
    read = core.read_model(_source(model))
    # Left to itself it would take bfloat16 wherever the CPU has it.
    settings = dict(INFERENCE_PRECISION_HINT=_HINTS[runtime.precision])
    if runtime.threads:
        settings['INFERENCE_NUM_THREADS'] = runtime.threads
    try:
        ready = core.compile_model(read, 'CPU', settings)
    except RuntimeError as error:
        if 'dynamic weights' not in str(error):
            raise
        raise ValueError(
            'its gates come with the image, and OpenVINO computes no weights; '
            'write it with --freeze'
        ) from error
    about = dict(read.rt_info.items()).get('framework', {})

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found = ready(dict(inputs))
        return [np.array(found[output]) for output in ready.outputs]

    return run, {key: str(about[key].value) for key in about}


def _openvino():
    try:
        import openvino
    except ModuleNotFoundError as error:
        message = "openvino not found, it comes with: pip install 'mmdet_groupconv[openvino]'"
        raise ImportError(message) from error
    return openvino
