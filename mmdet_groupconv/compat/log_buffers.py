"""What MMEngine's checkpoints hold besides tensors: log buffers of numpy arrays.

PyTorch refuses such types from files unless they are allowed by name, and OpenMMLab's MMEngine,
made before it did so, fails to resume a run.
"""

from collections.abc import Callable
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def _statistic(cls: type, name: str) -> Callable:
    """Stands in for the ``getattr`` that these buffers are pickled with."""
    if cls is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise UnpicklingError(f'a reference to {name} of {cls}')
    return getattr(cls, name)


_TYPES = [
    HistoryBuffer,
    (_statistic, 'builtins.getattr'),
    np.ndarray,
    np.dtype,
    np.zeros(1).__reduce__()[0],  # the functions that rebuild arrays and scalars; they moved in
    np.float64(1).__reduce__()[0],  # numpy 2
    *(type(np.dtype(kind)) for kind in ('float32', 'float64', 'int32', 'int64')),
]


def allow_log_buffers() -> None:
    """Let ``torch.load(weights_only=True)`` read them, and nothing else that it didn't read."""
    torch.serialization.add_safe_globals(_TYPES)
