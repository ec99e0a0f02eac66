"""What each layer of a compact network does, as a table for people."""

from rich.console import Console
from rich.table import Table

from ..compiler import Layer


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
