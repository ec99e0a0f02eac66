"""The checkpoint that an interrupted run goes on from."""

import os
import re
import zipfile
from pathlib import Path


def latest_checkpoint(folder: str | os.PathLike) -> tuple[str | None, list[str]]:
    """The newest whole checkpoint of a run's folder, and the damaged files passed over for it.

    That is what ``last_checkpoint`` names (in `folder` itself where that was moved or copied), else
    the newest ``epoch_*.pth`` or ``iter_*.pth``. None where there is no whole one. A file on
    another storage (``s3://...``) is taken as it is.
    """
    damaged = []
    for path in _candidates(Path(folder)):
        if '://' in path or _is_whole(path):
            return path, damaged
        damaged.append(path)
    return None, damaged


def _candidates(folder: Path) -> list[str]:
    pointer = folder / 'last_checkpoint'
    named = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    if '://' in named:
        return [named]
    here = [path for kind in ('epoch', 'iter') for path in folder.glob(f'{kind}_*.pth')]
    paths = [str(folder / Path(named).name), named, *map(str, sorted(here, key=_age))]
    return [path for path in dict.fromkeys(paths) if os.path.isfile(path)]


def _age(path: Path) -> tuple[int, int]:
    # A folder may hold an older run's files with higher numbers.
    number = re.search(r'_(\d+)\.pth$', path.name)
    return -path.stat().st_mtime_ns, -int(number[1]) if number else 0


def _is_whole(path: str) -> bool:
    # Torch's files are zip files, whose directory comes last: a part of one has none.
    try:
        with zipfile.ZipFile(path) as file:
            return bool(file.namelist())
    except (zipfile.BadZipFile, OSError):
        return False
