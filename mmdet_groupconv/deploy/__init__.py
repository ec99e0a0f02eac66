"""ONNX files in which grouped work is really gone; needs the packages onnx and onnxruntime.

What PyTorch traces has dense convolutions with zeros in them. Their weights alone tell what to
leave out, so nothing here knows a method.
"""

from .export import Report, export_onnx

__all__ = ['Report', 'export_onnx']
