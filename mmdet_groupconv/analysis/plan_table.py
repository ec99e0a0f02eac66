"""What is to become of a detector's layers, as a table for people."""

from rich.console import Console
from rich.table import Table

from ..grouping import LayerPlan, Plan

_STATIC = 'MACs kept', 'energy kept', 'groups'
_GATED = 'gates to keep', 'MACs, open', *_STATIC[1:]


def print_plan(plan: Plan, title: str) -> None:
    """A row a layer, then the sums."""
    console = Console(width=None if Console().is_terminal else 120)
    gated = any(layer.gates is not None for layer in plan.layers)
    table = Table('layer', title=title, title_justify='left')
    for column in ('dense [M]', *(_GATED if gated else _STATIC)):
        table.add_column(column, justify='right')
    table.add_column('stays dense', overflow='fold')
    for layer in plan.layers:
        table.add_row(layer.name, *_numbers(layer, gated), layer.why_dense or '')
    console.print(table)
    height, width = plan.input_size
    console.print(
        f'{plan.reached:.3f} of the {plan.scope} at {height}x{width} ({plan.target:g} asked for'
        f'{", while the fine-tuning closes gates" if gated else ""}), '
        f'{plan.detector:.3f} of the whole detector'
    )
    if plan.orders:
        kept = ', '.join(f'{name} {share:.3f}' for name, share in plan.orders.items())
        console.print(f'kept of the energy of layers in groups, by their orders: {kept}')


def _numbers(layer: LayerPlan, gated: bool) -> list[str]:
    left = [f'{layer.share:.3f}', _share(layer.kept), str(layer.groups)]
    return [f'{layer.macs / 1e6:,.1f}', *([_share(layer.gates)] if gated else []), *left]


def _share(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'
