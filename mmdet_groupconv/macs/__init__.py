"""Multiply-accumulates of whole networks; those of layers are counted in ``layers/macs.py``."""

from .counting import count_macs
from .detectors import forward_detector
from .report import LayerRow, MacReport, mean_report

__all__ = ['LayerRow', 'MacReport', 'count_macs', 'forward_detector', 'mean_report']
