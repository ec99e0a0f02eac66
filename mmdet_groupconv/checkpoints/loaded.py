"""What a network gets from a checkpoint, and what it doesn't."""

from torch import Tensor, nn

from .grouping import grouping_keys


def check_grouping(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Raise ValueError where a file holds a part of what decides the grouping of `module`.

    Dense weights hold nothing of it, and a pretrained grouped network all; in between, some gates
    would be new while the weights around them had learned to rely on others. source: the file.
    """
    # Old files lack the counters of norms.
    keys = [key for key in grouping_keys(module) if not key.endswith('num_batches_tracked')]
    lacking = [key for key in keys if key not in state]
    if lacking and len(lacking) < len(keys):
        raise ValueError(
            f'checkpoint {source} holds {len(keys) - len(lacking)} of the {len(keys)} tensors that '
            f'decide the grouping of {type(module).__name__} (first missing: {lacking[0]}), '
            'expected all of them, or none as in dense weights'
        )


def loading_report(name: str, module: nn.Module, state: dict[str, Tensor], source: str) -> str:
    """One line that says which tensors of `module` come from a file and which start anew.

    name: of the module. source: the file.
    """
    own = module.state_dict()
    loaded = {key for key in own if key in state and own[key].shape == state[key].shape}
    grouping = set(grouping_keys(module))
    parts = [f'{name}: {len(loaded)} of {len(own)} tensors from {source}']
    for what, keys in (
        ('start anew: of the grouping', grouping - loaded),
        ('start anew: others', own.keys() - grouping - loaded),
        ('in the file but not used', state.keys() - loaded),
    ):
        if keys:
            parts.append(f'{what} {len(keys)} ({_beginnings(keys)})')
    return '; '.join(parts)


def _beginnings(keys: set[str], at_most: int = 4) -> str:
    names = sorted({key.rpartition('.')[0] for key in keys})
    return ', '.join(names[:at_most]) + (', ...' if len(names) > at_most else '')
