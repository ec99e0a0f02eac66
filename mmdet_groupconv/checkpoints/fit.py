"""Whether a checkpoint belongs to a network, told before it is loaded."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import accumulate

from torch import Tensor, nn

# Files from before torch 0.4.1 lack BatchNorm's counter.
_OPTIONAL = ('num_batches_tracked',)
_MOST_LINES = 10


class MisfitError(ValueError):
    """A state dict that belongs to another network.

    lines: the keys at fault, a module or block a line, at most ten lines for each kind of fault.
    """

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines


def check_fit(
    model: nn.Module,
    state: dict[str, Tensor],
    source: str,
    may_lack: Collection[str] = (),
    may_add: Collection[str] = (),
) -> None:
    """Raise MisfitError, a ValueError, where a state dict doesn't belong to `model`.

    source: the file, for the message. may_lack: parts of names that the checkpoint needn't have
    (new gate nets, say). may_add: parts that it may have beyond the model's (a classifier, say).
    """
    check_keys(model.state_dict(), state, source, type(model).__name__, may_lack, may_add)


def check_keys(
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    source: str,
    network: str,
    may_lack: Collection[str] = (),
    may_add: Collection[str] = (),
) -> None:
    """As :func:`check_fit`, for a network that is given by its state dict `own` and its name."""
    reshaped = {
        key: f'{key} {list(state[key].shape)} for {list(own[key].shape)}'
        for key in own
        if key in state and own[key].shape != state[key].shape
    }
    missing = [k for k in own if k not in state and not _named(k, (*may_lack, *_OPTIONAL))]
    unexpected = [k for k in state if k not in own and not _named(k, may_add)]
    complaints = [
        f'{len(keys)} keys {what} (first: {keys[0]})'
        for keys, what in (
            (list(reshaped.values()), 'of another shape'),
            (missing, 'missing'),
            (unexpected, 'unexpected'),
        )
        if keys
    ]
    if complaints:
        blocks = _blocks(reshaped)
        lines = [
            *_bounded('missing', [_line(*group) for group in _modules(missing, state)]),
            *_bounded('unexpected', [_line(*group) for group in _modules(unexpected, own)]),
            *_bounded(
                'mis-shaped',
                [f'{_line(name, keys)}, first {reshaped[keys[0]]}' for name, keys in blocks],
            ),
        ]
        raise MisfitError(
            f'checkpoint {source} does not fit {network}: {"; ".join(complaints)}', lines
        )


def _named(key: str, parts: Collection[str]) -> bool:
    return any(part in key for part in parts)


def _modules(faulty: Iterable[str], sound: Iterable[str]) -> list[tuple[str, list[str]]]:
    """The outermost modules all of whose keys are faulty, each with these keys."""
    touched = Counter(name for key in sound for name in _parents(key))
    groups = {}
    for key in faulty:
        module = next((name for name in _parents(key) if not touched[name]), key)
        groups.setdefault(module, []).append(key)
    return list(groups.items())


def _blocks(keys: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Keys by numbered block (``layer1.0``), or module by module outside of these."""
    groups = {}
    for key in keys:
        match = re.match(r'.*?\.\d+(?=\.)', key)
        module = match[0] if match else key.rpartition('.')[0] or key
        groups.setdefault(module, []).append(key)
    return list(groups.items())


def _parents(key: str) -> Iterable[str]:
    return accumulate(key.split('.'), lambda parent, child: f'{parent}.{child}')


def _line(module: str, keys: list[str]) -> str:
    return module if keys == [module] else f'{module}.* ({len(keys)} keys)'


def _bounded(fault: str, lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    shown = [f'{fault}: {line}' for line in lines[:_MOST_LINES]]
    return [*shown, f'{fault}: {more} more modules'] if more > 0 else shown
