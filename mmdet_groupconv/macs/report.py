"""What a network's MACs are, by layer, in plain numbers."""

from dataclasses import asdict, dataclass, field, fields

from torch import nn

from ..layers import Macs


@dataclass
class LayerRow:
    """MACs of one layer for one image; the parts are those of :class:`MacReport`.

    density: share of its connections that is open, None for a layer that isn't grouped.
    note: why a layer that a method was to group is dense.
    """

    name: str
    original: float = 0.0
    always_on: float = 0.0
    masked: float = 0.0
    unread: float = 0.0
    gate_nets: float = 0.0
    density: float | None = None
    note: str | None = None

    @property
    def macs(self) -> float:
        return self.always_on + self.masked - self.unread + self.gate_nets


@dataclass
class MacReport:
    """MACs for one image (a mean over several), in the convention of ``layers/macs.py``.

    original: dense host. always_on: what no gate touches. masked: filters x channels read.
    unread: work whose output no later gate reads. gate_nets: deciding the gates.
    ``macs = always_on + masked - unread + gate_nets``, ``ratio = macs / original``.
    layers: a row a layer.
    """

    layers: list[LayerRow] = field(default_factory=list)

    @property
    def original(self) -> float:
        return sum(row.original for row in self.layers)

    @property
    def always_on(self) -> float:
        return sum(row.always_on for row in self.layers)

    @property
    def masked(self) -> float:
        return sum(row.masked for row in self.layers)

    @property
    def unread(self) -> float:
        return sum(row.unread for row in self.layers)

    @property
    def gate_nets(self) -> float:
        return sum(row.gate_nets for row in self.layers)

    @property
    def macs(self) -> float:
        return sum(row.macs for row in self.layers)

    @property
    def ratio(self) -> float:
        return self.macs / self.original

    @property
    def parts(self) -> dict[str, 'MacReport']:
        """By the network's children: a detector's backbone, neck and heads, in their order."""
        parts: dict[str, MacReport] = {}
        for row in self.layers:
            parts.setdefault(row.name.split('.')[0], MacReport()).layers.append(row)
        return parts

    def to_dict(self) -> dict:
        """For JSON."""
        return dict(
            _totals(self),
            parts={name: _totals(part) for name, part in self.parts.items()},
            layers=[dict(asdict(row), macs=row.macs) for row in self.layers],
        )


def mean_report(reports: list[MacReport]) -> MacReport:
    """The mean over images of one network, layer by layer."""

    def mean(rows: tuple[LayerRow, ...]) -> LayerRow:
        values = {'name': rows[0].name, 'note': rows[0].note}
        for name in (f.name for f in fields(LayerRow) if f.name not in values):
            of_rows = [getattr(row, name) for row in rows]
            values[name] = None if None in of_rows else sum(of_rows) / len(of_rows)
        return LayerRow(**values)

    return MacReport(
        [mean(rows) for rows in zip(*(report.layers for report in reports), strict=True)]
    )


def to_report(macs: Macs, model: nn.Module) -> MacReport:
    """Plain numbers from a meter's tensors; calls of one layer of `model` are summed."""
    rows: dict[str, LayerRow] = {}
    shares: dict[str, list[float]] = {}
    for call in macs.layers:
        row = rows.setdefault(call.name, LayerRow(call.name))
        if call.is_gate_net:
            row.gate_nets += call.dense
            continue
        row.original += call.dense
        row.unread += float(call.saved)
        if call.gate is None:
            row.always_on += call.dense
        else:
            row.masked += float(call.masked)
            shares.setdefault(call.name, []).append(float(call.connected))
    for name, row in rows.items():
        row.density = sum(shares[name]) / len(shares[name]) if name in shares else None
        row.note = vars(model.get_submodule(name)).get('why_dense')
    return MacReport(list(rows.values()))


def _totals(report: MacReport) -> dict[str, float]:
    names = 'original', 'always_on', 'masked', 'unread', 'gate_nets', 'macs', 'ratio'
    return {name: getattr(report, name) for name in names if name != 'ratio' or report.original}
