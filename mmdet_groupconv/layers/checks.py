"""Numbers that are given as arguments, refused by name where they are none or out of range."""

import math
from collections.abc import Callable
from typing import Any


def check_integer(
    name: str, value: Any, owner: str, least: int = 1, most: int | None = None
) -> None:
    """Raise ValueError unless `value` is an integer (no bool, no string) from least to most."""
    limit = math.inf if most is None else most
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= limit:
        range_ = f'of {least} or more' if most is None else f'of {least} to {most}'
        raise ValueError(f'{name}={value!r} of {owner}, expected an integer {range_}')


def check_number(
    name: str, value: Any, owner: str, expected: str, within: Callable[[float], bool]
) -> None:
    """Raise ValueError unless `value` is a finite number `within` what is expected."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not within(value):
        raise ValueError(f'{name}={value!r} of {owner}, expected {expected}')


def check_flag(name: str, value: Any, owner: str) -> None:
    """Raise ValueError unless `value` is True or False, 1 or 0; any text would be."""
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError(f'{name}={value!r} of {owner}, expected True or False')
