"""Clear refusals of arguments that can't be honoured."""

import difflib
import inspect
from collections.abc import Collection


def refuse_unknown(name: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise TypeError, with a guess, where `name` got an argument that isn't known."""
    for unknown in given:
        if unknown not in known:
            close = difflib.get_close_matches(unknown, known, n=1)
            hint = f', did you mean {close[0]!r}?' if close else ''
            raise TypeError(f'{name} got an unknown argument {unknown!r}{hint}')


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
