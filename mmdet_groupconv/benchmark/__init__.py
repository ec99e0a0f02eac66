"""Measuring speed: forms of a network side by side in one process."""

from .bench import Bench
from .cases import INFERENCE, TRAINING, factors, inference_cases, training_cases
from .dense import AbsentError
from .gates import prepare, set_mac_ratio, varying_share
from .machine import describe
from .memory import peak_memory
from .published_form import to_published_form
from .tables import print_layers, print_timings
from .timing import Timing, interleaved

__all__ = [
    'INFERENCE',
    'TRAINING',
    'AbsentError',
    'Bench',
    'Timing',
    'describe',
    'factors',
    'inference_cases',
    'interleaved',
    'peak_memory',
    'prepare',
    'print_layers',
    'print_timings',
    'set_mac_ratio',
    'to_published_form',
    'training_cases',
    'varying_share',
]
