"""onnxruntime, on the CPU."""

import os

import onnxruntime
from onnx import ModelProto


def session(model: ModelProto | str | os.PathLike, threads: int) -> onnxruntime.InferenceSession:
    """To run a model or a file. threads: 0 for as many as there are cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    source = model.SerializeToString() if isinstance(model, ModelProto) else os.fspath(model)
    return onnxruntime.InferenceSession(source, options, ['CPUExecutionProvider'])
