"""Figures as tables for people."""

from rich.console import Console
from rich.table import Table

from ..compiler import Layer
from .timing import Timing


def print_timings(console: Console, timings: dict[str, Timing], ours: str, title: str) -> None:
    """A row a form, the fastest first. ours: the form that others are compared with."""
    table = Table('case', title=title, title_justify='left')
    for column in ('median [ms]', 'quartiles [ms]', f'/ {ours}', 'peak memory [MB]'):
        table.add_column(column, justify='right')
    for name, timing in sorted(timings.items(), key=lambda item: item[1].median):
        quartiles = ' ... '.join(f'{1000 * second:,.1f}' for second in timing.quartiles)
        peak = '-' if timing.peak is None else f'{timing.peak / 2**20:,.0f}'
        factor = timing.median / timings[ours].median
        table.add_row(name, f'{1000 * timing.median:,.1f}', quartiles, f'{factor:.2f}', peak)
    console.print(table)


def print_layers(console: Console, layers: list[Layer]) -> None:
    """A row a layer: what it is, its work, the form that it took and how long others take."""
    table = Table('layer', title='compact, layer by layer', title_justify='left')
    table.add_column('kind')
    table.add_column('MACs done [M]', justify='right')
    table.add_column('form')
    table.add_column('forms tried [ms]', overflow='fold')
    table.add_column('why', overflow='fold')
    for layer in layers:
        tried = ', '.join(
            f'{form} {milliseconds:.2f}'
            for form, milliseconds in sorted(layer.milliseconds.items(), key=lambda item: item[1])
        )
        macs = f'{layer.macs / 1e6:,.1f}'
        table.add_row(layer.name, layer.kind, macs, layer.form, tried, layer.reason)
    console.print(table)


def print_best(console: Console, best: dict[str, tuple[str, str, float]]) -> None:
    """A row a precision, as :func:`by_precision` finds them."""
    table = Table('precision', 'fastest of ours', 'fastest dense', 'dense / ours')
    for precision, (ours, dense, factor) in best.items():
        table.add_row(precision, ours, dense, f'{factor:.2f}')
    console.print(table)
