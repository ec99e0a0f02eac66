"""From a file into a network."""

import os

from torch import nn

from .fit import check_fit
from .reading import read_state_dict


def load_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Give a network the weights of a file, all of them.

    Raises FileNotFoundError and ValueError that name the file: where it can't be read, and where
    its weights are another network's.
    """
    state = read_state_dict(path)
    check_fit(model, state, str(path))
    model.load_state_dict(state, strict=False)  # old files lack the counters of norms
