"""Measuring speed: forms of a network side by side in one process."""

from .bench import Bench
from .cases import (
    PRECISIONS,
    TRAINING,
    by_precision,
    factors,
    inference_cases,
    names_of,
    training_cases,
)
from .dense import AbsentError
from .gates import prepare, set_mac_ratio, varying_share
from .machine import describe
from .memory import peak_memory
from .published_form import to_published_form
from .tables import print_best, print_layers, print_timings
from .timing import Timing, interleaved

__all__ = [
    'PRECISIONS',
    'TRAINING',
    'AbsentError',
    'Bench',
    'Timing',
    'by_precision',
    'describe',
    'factors',
    'inference_cases',
    'interleaved',
    'names_of',
    'peak_memory',
    'prepare',
    'print_best',
    'print_layers',
    'print_timings',
    'set_mac_ratio',
    'to_published_form',
    'training_cases',
    'varying_share',
]
