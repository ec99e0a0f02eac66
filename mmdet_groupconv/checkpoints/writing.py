"""Files written whole or not at all."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def check_writable(path: str | os.PathLike, source: str | os.PathLike) -> None:
    """Raise ValueError where a file can't be written to `path`, before the work for it.

    source: the file (or address) that it is made from, which must stay.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f'output {path}: folder {path.parent} not found')
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f'output {path}: folder {path.parent} is not writable')
    if path.is_dir():
        raise ValueError(f'output {path} is a folder, expected a file')
    if path.exists() and not path.is_file():  # a rename would replace /dev/null itself
        raise ValueError(f'output {path} is a device or pipe, expected a file')
    if path.exists() and os.path.exists(source) and path.samefile(source):
        raise ValueError(f'output {path} is the input itself, expected another file')


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """A name to write a file under, which becomes `path` at the end; where that fails, nothing."""
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike, name: str) -> None:
    """Remove what a killed process left of files in a folder that match `name` (a glob)."""
    for path in Path(folder).glob(f'.{name}.*'):
        if re.fullmatch(r'\.\d+', path.suffix):
            path.unlink(missing_ok=True)


def write_checkpoint(path: str | os.PathLike, state: dict[str, Tensor], meta: dict) -> None:
    """Write a file that MMEngine's runners load, and raise as :func:`save_whole` does."""
    save_whole(path, dict(meta=meta, state_dict=state))


def write_json(path: str | os.PathLike, content: Any) -> None:
    """As indented JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + '\n')


def save_whole(path: str | os.PathLike, content: dict) -> None:
    """``torch.save`` under a temporary name, then renamed.

    Raises OSError where that fails; torch says RuntimeError of a full disk.
    """
    with whole_file(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:
            raise OSError(f'{path} can not be written: {error}') from error
