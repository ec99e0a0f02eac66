"""COCO annotation files as columns, with a note of each record that lacks something."""

import json
import os
import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np

from .report import DataReport

# Most of the file, and nothing that is checked: without it, reading takes a fifth of the time.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[[\[\]\d\s.,eE+-]*\]')
_ID, _NUMBER = (int, str), (int, float)


def read_coco(path: str | os.PathLike) -> dict[str, list]:
    """The lists ``images``, ``annotations`` and ``categories`` of a file, without polygons.

    A missing list of annotations is an empty one, as of sets whose ground truth isn't public.
    Raises FileNotFoundError and ValueError that name the file and what is wrong with it.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'annotation file {path} not found')
    with open(path, 'rb') as file:
        text = _POLYGONS.sub(b'"segmentation":[]', file.read())
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # JSON or UTF-8
        what = 'is empty' if not text.strip() else f'is not JSON, or cut short ({error})'
        raise ValueError(f'annotation file {path} {what}') from error
    if not isinstance(content, dict):
        raise ValueError(
            f'annotation file {path} holds a {type(content).__name__}, expected an object with '
            'images, annotations and categories'
        )
    content.setdefault('annotations', [])
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content.get(key), list):
            found = f'{key} is a {type(content[key]).__name__}' if key in content else f'no {key}'
            raise ValueError(f'annotation file {path}: {found}, expected a list {key}')
    return content


def sound_records(records: list, what: str, fields: dict, report: DataReport) -> list[dict]:
    """The records that have all `fields`, each of its kind; the others are noted.

    what: a record's name. fields: key -> one of `ID`, `TEXT`, `NUMBER`, `SIZE`, `BOX`.
    """
    if all(type(record) is dict for record in records) and all(
        _all_sound(records, key, kind) for key, kind in fields.items()
    ):
        return records
    sound = []
    faults: dict[str, list[str]] = {}
    for number, record in enumerate(records):
        fault = _fault(record, fields)
        if fault:
            kind, found = fault
            name = record.get('id') if isinstance(record, dict) else None
            named = f'number {number}' if name is None else f'id {name!r}'
            faults.setdefault(f'{what} {kind}', []).append(f'{what} {named}{found}')
        else:
            sound.append(record)
    for kind, examples in faults.items():
        report.add(kind, examples)
    return sound


def _fault(record: Any, fields: dict) -> tuple[str, str] | None:
    if not isinstance(record, dict):
        return 'that is no object', f' is {_short(record)}'
    for key, (expected, sound) in fields.items():
        if key not in record:
            return f'without {key}', ''
        if not sound([record[key]]):
            return f'whose {key} is not {expected}', f': {key}={_short(record[key])}'
    return None


def _all_sound(records: list[dict], key: str, kind: tuple[str, Callable]) -> bool:
    try:
        return kind[1]([record[key] for record in records])
    except KeyError:
        return False


def _types(values: Iterable, allowed: tuple[type, ...]) -> bool:
    return set(map(type, values)) <= set(allowed)


def _finite(values: list) -> bool:
    return _types(values, _NUMBER) and bool(np.isfinite(np.array(values, float)).all())


def _sizes(values: list) -> bool:
    return _finite(values) and bool((np.array(values, float) > 0).all())


def _boxes(values: list) -> bool:
    return (
        _types(values, (list,))
        and set(map(len, values)) <= {4}
        and _finite(list(chain.from_iterable(values)))
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


# Each is what was expected, and whether all of a list is so.
ID = 'an integer or a string', lambda values: _types(values, _ID)
TEXT = 'a string', lambda values: _types(values, (str,)) and all(values)
NUMBER = 'a finite number', _finite
SIZE = 'a number above 0', _sizes
BOX = 'four finite numbers', _boxes
