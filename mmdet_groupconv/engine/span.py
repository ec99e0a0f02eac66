"""A part of a run, over which something changes linearly."""

from ..layers.checks import check_number


class Span:
    """start, stop: training progress, 0 ... 1. owner: whose arguments these are, for errors.

    Raises ValueError for others.
    """

    def __init__(self, start: float, stop: float, owner: str) -> None:
        share = 'a share of the run in [0, 1]'
        check_number('start', start, owner, share, lambda v: 0 <= v <= 1)
        expected = f'{share} from start={start} on'
        check_number('stop', stop, owner, expected, lambda v: start <= v <= 1)
        self.start, self.stop = start, stop

    def passed(self, progress: float) -> float:
        """The share of the span that lies behind `progress`."""
        if progress >= self.stop:
            return 1.0
        if progress <= self.start:
            return 0.0
        return (progress - self.start) / (self.stop - self.start)
