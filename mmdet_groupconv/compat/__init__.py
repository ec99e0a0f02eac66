"""Fitting the package to the installation it finds itself in."""

from .log_buffers import allow_log_buffers
from .mmcv_ops import ensure_mmcv_ops

__all__ = ['allow_log_buffers', 'ensure_mmcv_ops']
