"""Reading checkpoints without trusting them."""

from .fit import check_fit
from .reading import read_state_dict

__all__ = ['check_fit', 'read_state_dict']
