"""Reading checkpoints without trusting them, and writing files whole."""

from .fit import check_fit
from .grouping import grouping_keys, trimmed_keys
from .reading import read_checkpoint, read_state_dict
from .writing import check_writable, whole_file, write_checkpoint

__all__ = [
    'check_fit',
    'check_writable',
    'grouping_keys',
    'read_checkpoint',
    'read_state_dict',
    'trimmed_keys',
    'whole_file',
    'write_checkpoint',
]
