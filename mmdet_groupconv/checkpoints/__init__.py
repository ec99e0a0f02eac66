"""Reading checkpoints without trusting them, and writing them whole."""

from .fit import check_fit
from .grouping import grouping_keys, trimmed_keys
from .reading import read_checkpoint, read_state_dict
from .writing import check_writable, write_checkpoint

__all__ = [
    'check_fit',
    'check_writable',
    'grouping_keys',
    'read_checkpoint',
    'read_state_dict',
    'trimmed_keys',
    'write_checkpoint',
]
