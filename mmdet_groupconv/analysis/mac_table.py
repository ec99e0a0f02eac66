"""MAC reports as tables for people."""

from rich.console import Console
from rich.table import Table

from ..macs import LayerMacs, MacReport


def print_macs(report: MacReport, title: str, targets: dict[str, float] | None = None) -> None:
    """Print a report: a row a layer, a row a part of the detector, the sums, both ratios.

    targets: MAC ratios that training aimed at, by scope ('backbone', 'detector').
    """
    console = Console(width=None if Console().is_terminal else 120)
    console.print(_layers(report, title))
    if 'backbone' in report.parts:
        console.print(_parts(report))
    console.print(_sums(report, targets or {}))


def _layers(report: MacReport, title: str) -> Table:
    table = Table('layer', title=title, title_justify='left')
    for column in ('dense [M]', 'done [M]', 'done / dense', 'open'):
        table.add_column(column, justify='right')
    table.add_column('stays dense', overflow='fold')
    for row in report.layers:
        density = '-' if row.density is None else f'{row.density:.3f}'
        numbers = _mega(row.original), _mega(row.macs), _share(row), density
        table.add_row(row.name, *numbers, row.note or '')
    return table


def _parts(report: MacReport) -> Table:
    table = Table('part')
    for column in ('dense [G]', 'done [G]', 'done / dense', 'share of the dense detector'):
        table.add_column(column, justify='right')
    for name, part in (*report.parts.items(), ('detector', report)):
        share = f'{part.original / report.original:.3f}'
        numbers = f'{part.original / 1e9:,.3f}', f'{part.macs / 1e9:,.3f}', _share(part), share
        table.add_row(name, *numbers)
    return table


def _sums(report: MacReport, targets: dict[str, float]) -> Table:
    sums = Table('MACs of one image', show_edge=False)
    sums.add_column('[M]', justify='right')
    for name, value in (
        ('original (dense)', report.original),
        ('always on', report.always_on),
        ('masked (connections that are open)', report.masked),
        ('unread (outputs nobody reads)', -report.unread),
        ('gate nets', report.gate_nets),
        ('total', report.macs),
    ):
        sums.add_row(name, _mega(value))
    backbone = report.parts.get('backbone')
    if backbone is None:
        sums.add_row('ratio reached', f'{report.ratio:.4f}')
    else:
        sums.add_row('ratio reached, backbone', f'{backbone.ratio:.4f}')
        sums.add_row('ratio reached, detector', f'{report.ratio:.4f}')
    for scope, target in targets.items():
        sums.add_row(f'ratio targeted, {scope}', f'{target:.4f}')
    return sums


def _share(row: LayerMacs | MacReport) -> str:
    return f'{row.macs / row.original:.3f}' if row.original else '-'


def _mega(macs: float) -> str:
    return f'{macs / 1e6:,.3f}'
