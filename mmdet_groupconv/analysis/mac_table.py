"""MAC reports as tables for people."""

from rich.console import Console
from rich.table import Table

from .macs import MacReport


def print_macs(report: MacReport, title: str, target: float | None = None) -> None:
    """Print a report: a row a layer, the parts, the ratio, and the target where there is one."""
    table = Table(title=title, title_justify='left')
    table.add_column('layer')
    for column in ('dense [M]', 'done [M]', 'done / dense', 'open'):
        table.add_column(column, justify='right')
    for row in report.layers:
        share = f'{row.macs / row.original:.3f}' if row.original else '-'
        density = '-' if row.density is None else f'{row.density:.3f}'
        table.add_row(row.name, _mega(row.original), _mega(row.macs), share, density)
    console = Console(width=None if Console().is_terminal else 110)
    console.print(table)
    console.print(_totals(report, target))


def _totals(report: MacReport, target: float | None) -> Table:
    totals = Table('MACs of one image', show_edge=False)
    totals.add_column('[M]', justify='right')
    for name, value in (
        ('original (dense)', report.original),
        ('always on', report.always_on),
        ('masked (connections that are open)', report.masked),
        ('unread (outputs nobody reads)', -report.unread),
        ('gate nets', report.gate_nets),
        ('total', report.macs),
    ):
        totals.add_row(name, _mega(value))
    totals.add_row('ratio reached', f'{report.ratio:.4f}')
    if target is not None:
        totals.add_row('ratio targeted', f'{target:.4f}')
    return totals


def _mega(macs: float) -> str:
    return f'{macs / 1e6:,.3f}'
