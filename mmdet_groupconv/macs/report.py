"""What a network's MACs are, by layer."""

from dataclasses import dataclass, field, fields
from functools import cached_property

import torch
from torch import Tensor

from ..layers import Gate

Number = Tensor | float
_SUMS = 'original', 'always_on', 'masked', 'unread', 'gate_nets'


@dataclass
class LayerMacs:
    """MACs of one layer for one image; the parts are those of :class:`MacReport`.

    density: share of its connections that is open, None for a layer that isn't grouped.
    note: why a layer that a method was to group is dense. gates: what a meter saw, a call each;
    plain numbers have none.
    """

    name: str
    original: float = 0.0
    always_on: float = 0.0
    masked: Number = 0.0
    unread: Number = 0.0
    gate_nets: float = 0.0
    density: Number | None = None
    note: str | None = None
    gates: list[Gate] = field(default_factory=list, repr=False)

    @property
    def macs(self) -> Number:
        return self.always_on + self.masked - self.unread + self.gate_nets


_NUMBERS = [f.name for f in fields(LayerMacs) if f.name != 'gates']


@dataclass
class MacReport:
    """MACs for one image (a mean over several), in the convention of ``macs/meter.py``.

    original: dense host. always_on: what no gate touches. masked: filters x channels read, which
    gradients flow through while a network trains. unread: of that and of always_on, work whose
    output no later gate reads; a constant for gradients, as published. gate_nets: deciding the
    gates. layers: a row a layer.
    """

    layers: list[LayerMacs] = field(default_factory=list)

    @cached_property
    def original(self) -> float:
        return self._sum('original')

    @cached_property
    def always_on(self) -> float:
        return self._sum('always_on')

    @cached_property
    def masked(self) -> Number:
        return self._sum('masked')

    @cached_property
    def unread(self) -> Number:
        return self._sum('unread')

    @cached_property
    def gate_nets(self) -> float:
        return self._sum('gate_nets')

    @property
    def macs(self) -> Number:
        """always_on + masked - unread + gate_nets."""
        return self.always_on + self.masked - self.unread + self.gate_nets

    @property
    def ratio(self) -> Number:
        """macs / original; 1 where nothing was counted."""
        return self.macs / self.original if self.original else 1.0

    @cached_property
    def parts(self) -> dict[str, 'MacReport']:
        """By the network's children: a detector's backbone, neck and heads, in their order."""
        rows: dict[str, list[LayerMacs]] = {}
        for row in self.layers:
            rows.setdefault(row.name.split('.')[0], []).append(row)
        return {name: MacReport(of_part) for name, of_part in rows.items()}

    def part(self, name: str) -> 'MacReport':
        """Of one of them, e.g. 'backbone'; an empty report where the network has none."""
        return self.parts.get(name) or MacReport()

    def plain(self) -> 'MacReport':
        """The same in numbers that need no network."""
        return MacReport(
            [LayerMacs(*(_plain(getattr(row, name)) for name in _NUMBERS)) for row in self.layers]
        )

    def to_dict(self) -> dict:
        """For JSON; of a plain report."""
        return dict(
            self._totals(),
            parts={name: part._totals() for name, part in self.parts.items()},
            layers=[
                {name: getattr(row, name) for name in (*_NUMBERS, 'macs')} for row in self.layers
            ],
        )

    def _sum(self, name: str) -> Number:
        values = [getattr(row, name) for row in self.layers]
        tensors = [value for value in values if isinstance(value, Tensor)]
        others = sum(value for value in values if not isinstance(value, Tensor))
        return torch.stack(tensors).sum() + others if tensors else others

    def _totals(self) -> dict[str, float]:
        ratio = {'ratio': self.ratio} if self.original else {}
        return {name: getattr(self, name) for name in (*_SUMS, 'macs')} | ratio


def mean_report(reports: list[MacReport]) -> MacReport:
    """The mean over images of one network, layer by layer."""

    def mean(rows: tuple[LayerMacs, ...]) -> LayerMacs:
        values = {'name': rows[0].name, 'note': rows[0].note}
        for name in set(_NUMBERS) - values.keys():
            of_rows = [getattr(row, name) for row in rows]
            values[name] = None if None in of_rows else sum(of_rows) / len(of_rows)
        return LayerMacs(**values)

    return MacReport(
        [mean(rows) for rows in zip(*(report.layers for report in reports), strict=True)]
    )


def _plain(value: object) -> object:
    return float(value) if isinstance(value, Tensor) else value
