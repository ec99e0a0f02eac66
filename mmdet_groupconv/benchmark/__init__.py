"""Measuring speed: forms of a network side by side in one process."""

from .dense import AbsentError, Runtime, compiled, in_onnxruntime
from .detectors import in_runtime
from .gates import prepare, set_mac_ratio, varying_share
from .layers import print_layers
from .machine import describe
from .memory import peak_memory
from .published_form import to_published_form
from .timing import Timing, interleaved

__all__ = [
    'AbsentError',
    'Runtime',
    'Timing',
    'compiled',
    'describe',
    'in_onnxruntime',
    'in_runtime',
    'interleaved',
    'peak_memory',
    'prepare',
    'print_layers',
    'set_mac_ratio',
    'to_published_form',
    'varying_share',
]
