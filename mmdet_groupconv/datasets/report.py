"""What the checks of a data set found."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_EXAMPLES = 3


@dataclass
class Problem:
    """One kind of problem. examples: the first few, each with the id or file at fault."""

    kind: str
    count: int
    examples: list[str]
    error: bool = True

    def __str__(self) -> str:
        return f'{self.kind}: {self.examples[0]}' if self.examples else self.kind


@dataclass
class DataReport:
    """Of one data set.

    source: where it is configured and its file. labels: names of the classes in the order of the
    labels. boxes: how many the training learns from, by class. failure: why nothing was looked at.
    """

    source: str
    problems: list[Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    boxes: Counter = field(default_factory=Counter)
    failure: Exception | None = None

    def add(self, kind: str, examples: Iterable[str], error: bool = True) -> None:
        """Note a problem, unless there is no example of it."""
        found = list(examples)
        if found:
            self.problems.append(Problem(kind, len(found), found[:_EXAMPLES], error))

    @property
    def errors(self) -> list[Problem]:
        """Those with which a training would fail, or learn something else than was meant."""
        return [problem for problem in self.problems if problem.error]

    @property
    def error_line(self) -> str:
        """The first error, and how many more there are."""
        first, *others = self.errors
        more = first.count - 1 + sum(problem.count for problem in others)
        rest = f'; {more} more' if more > 0 else ''
        return f'{self.source}: {first}{rest} (tools/check_dataset.py CONFIG lists all)'
