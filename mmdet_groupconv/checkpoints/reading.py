"""State dicts from files; nothing in a file is ever executed."""

import os
from pickle import UnpicklingError

import torch
from torch import Tensor

from ..compat import allow_log_buffers


def read_state_dict(path: str | os.PathLike, prefix: str = '') -> dict[str, Tensor]:
    """The state dict of a checkpoint file, on the CPU.

    Understands a bare state dict and the keys ``state_dict`` and ``model`` around it; strips
    DataParallel's ``module.``. prefix: keep only the keys below it (``backbone``, say), without it.

    Raises FileNotFoundError, and ValueError for a file that is no checkpoint, that would need to
    run code (a pickled model), or that holds nothing below `prefix`.
    """
    return below_prefix(read_checkpoint(path)[0], prefix, path)


def below_prefix(
    state: dict[str, Tensor], prefix: str, path: str | os.PathLike
) -> dict[str, Tensor]:
    """What is below a prefix, without it. Raises ValueError that names the file for nothing."""
    prefix = prefix and prefix.rstrip('.') + '.'
    state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not state:
        raise ValueError(f'checkpoint {path} has no keys that begin with {prefix!r}')
    return state


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """The state dict and the ``meta`` of a checkpoint file.

    The papers' files have no ``meta``: their `epoch` and `best_prec1` are in its place.

    Raises as :func:`read_state_dict`.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'checkpoint {path} not found')
    try:
        allow_log_buffers()  # OneDL's MMEngine disallows them again whenever it has loaded a file
        content = torch.load(path, map_location='cpu', weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f'checkpoint {path} holds a whole model or other code, or is damaged, so it is not '
            'read; load it where that code is installed and trusted, and write its weights alone '
            f'with torch.save(model.state_dict(), ...) ({_cause(error)})'
        ) from error
    except Exception as error:  # whatever torch meets in a damaged file; a KeyError for a text
        raise ValueError(
            f'checkpoint {path} can not be read, it is no checkpoint or damaged: {error!r}'
        ) from error
    meta = _meta(content) if isinstance(content, dict) else {}
    for key in ('state_dict', 'model'):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f'checkpoint {path} holds {type(content).__name__}, expected a state dict')
    state = {str(key).removeprefix('module.'): value for key, value in content.items()}
    return state, meta


def _meta(content: dict) -> dict:
    meta = content.get('meta')
    if isinstance(meta, dict):
        return meta
    return {key: content[key] for key in ('epoch', 'best_prec1') if key in content}


def _cause(error: UnpicklingError) -> str:
    # Torch explains at length how to load the file all the same; the last part says what it met.
    lines = [line for line in str(error).splitlines() if 'Unsupported' in line]
    return (lines or str(error).splitlines())[0].split('. Please use')[0].strip()
