"""Measuring speed: forms of a network side by side in one process."""

from .dense import AbsentError, HeadOutputs, compiled, in_onnxruntime
from .gates import prepare, set_mac_ratio
from .published_form import to_published_form
from .timing import Timing, interleaved

__all__ = [
    'AbsentError',
    'HeadOutputs',
    'Timing',
    'compiled',
    'in_onnxruntime',
    'interleaved',
    'prepare',
    'set_mac_ratio',
    'to_published_form',
]
