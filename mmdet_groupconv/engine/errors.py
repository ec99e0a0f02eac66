"""A user's mistake ends in one line, not in a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What a wrong config, file or argument raises while a run is being prepared.
_USER_ERRORS = (ValueError, TypeError, KeyError, OSError, AssertionError, ImportError)


@contextmanager
def user_errors(kinds: tuple[type[Exception], ...] = _USER_ERRORS) -> Iterator[None]:
    """Print a user's error as one line on stderr and exit with status 1."""
    try:
        yield
    except kinds as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        print(f'error: {" ".join((text or repr(error)).split())}', file=sys.stderr)
        raise SystemExit(1) from error
