"""A user's mistake ends in one line, not in a traceback."""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import cv2

from ..arguments import guess

_UNNAMED = (ArithmeticError, AssertionError, AttributeError, RuntimeError, TypeError)
_PACKAGE = Path(__file__).resolve().parents[1]


@contextmanager
def user_errors() -> Iterator[None]:
    """While a run is prepared: print an error as one line on stderr and exit with status 1."""
    try:
        yield
    except Exception as error:
        _exit(error)


@contextmanager
def run_errors() -> Iterator[None]:
    """The same for what is the user's once a run has begun: files, images, our own refusals.

    All else keeps its traceback.
    """
    try:
        yield
    except Exception as error:
        if not (_of_files(error) or _refused(error) or _of_config(error)):
            raise
        _exit(error)


def _exit(error: Exception) -> None:
    print(f'error: {describe(error)}', file=sys.stderr)
    raise SystemExit(1) from error


def describe(error: Exception) -> str:
    """One line that says what was wrong, and where the error itself doesn't, in which object."""
    text = _text(error)
    frames = list(_frames(error))
    built = [f.f_locals.get('obj_cls') for f in frames if f.f_code.co_name == 'build_from_cfg']
    built = [cls.__name__ for cls in built if isinstance(cls, type)]
    if not text:
        text = traceback.extract_tb(error.__traceback__)[-1].line or type(error).__name__
    if isinstance(error, _UNNAMED) and built and built[-1] not in text:
        text = f'{built[-1]}: {text}'
    files = [f.f_locals.get('filename') for f in frames if f.f_code.co_name == 'fromfile']
    if files and str(files[0]) not in text:
        text = f'config {files[0]}: {type(error).__name__}: {text}'
    lacking = re.fullmatch(r"'(?:ConfigDict|Config)' object has no attribute '(\w+)'", text)
    if lacking:
        text = f'the config has no {lacking[1]!r}, expected it to be set'
    missing = re.match(r"'?(\w+) is not in the \S+ registry", text)
    if missing:
        known = {name for f in frames for name in _registered(f)}
        text = f'{missing[0]}{guess(missing[1], known)}'
    if isinstance(error, cv2.error) or 'OpenCV' in text:
        text += '; tools/check_dataset.py CONFIG --full names images that can not be read'
    return ' '.join(text.split())


def _text(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, KeyError) and text.isidentifier():
        return f'key {text!r} not found'
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith('Caught '):  # in a worker that loads data; with its traceback
        return lines[-1].partition(': ')[2] or lines[-1]
    return text


def _of_files(error: Exception) -> bool:
    return isinstance(error, OSError | cv2.error) or any(
        sign in str(error) for sign in ('failed to load image', 'cv2.error', 'OpenCV')
    )


def _refused(error: Exception) -> bool:
    # Our own checks raise in our own files; ValueErrors of bugs come from elsewhere.
    *_, last = _frames(error)
    return isinstance(error, ValueError) and _PACKAGE in Path(last.f_code.co_filename).parents


def _of_config(error: Exception) -> bool:
    # Optimizers and schedules are built when a training begins.
    builders = ('build_from_cfg', 'build_optim_wrapper', 'build_param_scheduler')
    return any(frame.f_code.co_name in builders for frame in _frames(error))


def _frames(error: Exception) -> Iterator[FrameType]:
    yield from (frame for frame, _ in traceback.walk_tb(error.__traceback__))


def _registered(frame: FrameType) -> set[str]:
    registry = frame.f_locals.get('registry')
    names = set()
    while registry is not None and hasattr(registry, 'module_dict'):
        names.update(registry.module_dict)
        registry = registry.parent
    return names
