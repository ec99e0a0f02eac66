"""Multiply-accumulates, of layers while they run and of whole networks."""

from .counting import count_macs, count_proposals
from .detectors import forward_detector
from .meter import MacMeter
from .report import LayerMacs, MacReport, mean_report

__all__ = [
    'LayerMacs',
    'MacMeter',
    'MacReport',
    'count_macs',
    'count_proposals',
    'forward_detector',
    'mean_report',
]
