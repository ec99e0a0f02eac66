"""Clear refusals of arguments that can't be honoured."""

import difflib
import inspect
from collections.abc import Collection
from typing import Any

from mmengine.registry import MODELS

from .layers.checks import check_flag, check_integer, check_number

# What MMDetection's ResNet and MobileNetV2 take and don't check, or not by name.
_FLAGS = 'deep_stem', 'avg_down', 'norm_eval', 'with_cp', 'zero_init_residual'
_COUNTS = 'in_channels', 'stem_channels', 'base_channels'
_HEAD_COUNTS = dict(num_classes=1, in_channels=1, feat_channels=1, num_convs=1, stacked_convs=0)


def refuse_unknown(name: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise TypeError, with a guess, where `name` got an argument that isn't known."""
    for unknown in given:
        if unknown not in known:
            raise TypeError(f'{name} got an unknown argument {unknown!r}{guess(unknown, known)}')


def check_arguments(network: type, parent: type, kwargs: dict, refused: tuple[str, ...]) -> None:
    """Raise TypeError for unknown arguments, ValueError for those of `refused` that are set."""
    name = network.__name__
    known = {*inspect.signature(parent).parameters, *inspect.signature(network).parameters}
    refuse_unknown(name, kwargs, known)
    for argument in refused:
        if kwargs.get(argument) is not None:
            raise ValueError(
                f'{argument}={kwargs[argument]} of {name}, expected None: the method itself '
                'groups the convolutions of the blocks'
            )
    _check_values(name, kwargs)


def _check_values(name: str, kwargs: dict) -> None:
    """Raise ValueError for the parents' arguments of a wrong type or out of range."""
    for argument, value in kwargs.items():
        if argument in _FLAGS:
            check_flag(argument, value, name)
        elif argument in _COUNTS and not (argument == 'stem_channels' and value is None):
            check_integer(argument, value, name)
        elif argument == 'widen_factor':
            check_number(argument, value, name, 'a number above 0', lambda v: v > 0)
        elif argument in ('norm_cfg', 'act_cfg'):
            check_type(f'{argument} of {name}', value)
        elif argument == 'style' and value not in ('pytorch', 'caffe'):
            raise ValueError(f"style={value!r} of {name}, expected 'pytorch' or 'caffe'")


def check_head(name: str, kwargs: dict) -> None:
    """Raise ValueError for a head's channels, classes or layers that are no such numbers."""
    for argument, least in _HEAD_COUNTS.items():
        if argument in kwargs:
            check_integer(argument, kwargs[argument], name, least)


def check_stages(name: str, stages: int, kwargs: dict, **of_each: Any) -> None:
    """Raise ValueError unless stages are named by their numbers, from 0 on.

    stages: how many there are. of_each: arguments that have an integer of 1 or more for each.
    """
    frozen, indices = kwargs.get('frozen_stages', -1), kwargs.get('out_indices', (0,))
    check_integer('frozen_stages', frozen, name, -1, stages)
    if not isinstance(indices, list | tuple) or not indices:
        raise ValueError(f'out_indices={indices!r} of {name}, expected a tuple of stages')
    for index in indices:
        check_integer('out_indices', index, name, 0, stages - 1)
    for argument, values in of_each.items():
        if not isinstance(values, list | tuple) or len(values) != stages:
            raise ValueError(f'{argument}={values!r} of {name}, expected {stages} integers')
        for value in values:
            check_integer(argument, value, name)


def check_type(argument: str, cfg: dict | None) -> None:
    """Raise TypeError or KeyError unless `cfg` is None or a dict with a type that is known."""
    if cfg is None:
        return
    if not isinstance(cfg, dict):
        raise TypeError(f'{argument}={cfg!r}, expected a dict with a type')
    if 'type' not in cfg:
        raise KeyError(f'{argument}={cfg!r}, expected a dict with a type')
    kind = cfg['type']
    if isinstance(kind, str) and MODELS.get(kind) is None:
        raise KeyError(f'{argument}: type {kind!r} not found{guess(kind, _known())}')


def guess(name: str, known: Collection[str]) -> str:
    """The end of a message on a name that isn't known."""
    close = difflib.get_close_matches(name, known, n=1)
    return f', did you mean {close[0]!r}?' if close else ''


def _known() -> set[str]:
    return {*MODELS.module_dict, *(k for c in MODELS.children.values() for k in c.module_dict)}
