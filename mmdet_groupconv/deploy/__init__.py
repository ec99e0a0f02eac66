"""ONNX files in which grouped work is really gone; needs onnx, onnx_ir and onnxruntime.

What PyTorch traces has dense convolutions with zeros in them. Their weights alone tell what to
leave out, so nothing here knows a method.
"""

from pathlib import Path

from .export import COMPARED, Report, export_onnx
from .file_detector import FileDetector
from .metadata import metadata
from .runtime import PRECISIONS, Runtime

DETECT = Path(__file__).with_name('detect.py')  # runs a file without this package

__all__ = [
    'COMPARED',
    'DETECT',
    'PRECISIONS',
    'FileDetector',
    'Report',
    'Runtime',
    'export_onnx',
    'metadata',
]
