"""What each layer costs, against the dense one."""

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...macs import LayerMacs, MacReport
from .style import (
    BLUE,
    GREEN,
    LIGHT,
    MEDIUM,
    ORANGE,
    RED,
    SMALL,
    layer_rows,
    new_figure,
    rows_height,
    stage_of,
    tidy,
)

_COLOURS = {
    'always on': BLUE, 'read by gates': GREEN, 'gate nets': RED, 'read by nobody later': ORANGE,
    'closed by gates': LIGHT,
}  # fmt: skip


def plot_macs(report: MacReport, title: str = 'MACs of one image') -> Figure:
    """A bar a layer and a bar a part: what is done, what nobody reads later, what gates close.

    The bars of a layer end at its dense MACs, or beyond where gate nets add to them.
    """
    rows = with_gate_nets(report)
    parts = {name: part for name, part in report.parts.items() if part.original}
    heights = [rows_height(len(rows)), 0.7 + 0.25 * len(parts)]
    title = f'{title}: {report.macs / 1e9:.2f} of {report.original / 1e9:.2f} G'
    figure = new_figure(8, sum(heights), f'{title} ({report.ratio:.3f})')
    above, below = figure.subplots(2, 1, height_ratios=heights)
    _bars(above, rows, 1e6, 'M')
    layer_rows(above, [row.name for row in rows])
    _bars(below, list(parts.values()), 1e9, 'G')
    below.set_yticks(range(len(parts)), list(parts))
    below.invert_yaxis()
    handles, labels = above.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside lower center', ncols=5, fontsize=MEDIUM, frameon=False
    )
    return figure


def with_gate_nets(report: MacReport) -> list[LayerMacs]:
    """A row a layer, without rows of nothing.

    A gate net's MACs are added to its layer's where it lies within it, else to a row of its stage.
    """
    dense = {row.name for row in report.layers if row.original}
    rows: dict[str, LayerMacs] = {}
    for row in report.layers:
        name = row.name
        if name not in dense:
            above = [name[:end] for end in _dots(name)]
            name = next((owner for owner in above if owner in dense), f'{_stage(name)}.gate nets')
        old = rows.get(name, LayerMacs(name))
        nets = old.gate_nets + row.gate_nets
        kept = row if name == row.name else old
        rows[name] = replace(kept, name=name, gate_nets=nets)
    return [row for row in rows.values() if row.original or row.gate_nets]


def _stage(name: str) -> str:
    return name[: name.index(stage_of(name))] + stage_of(name)


def _dots(name: str) -> list[int]:
    """Where a name's parts end, the last but one first."""
    return [place for place, letter in enumerate(name) if letter == '.'][::-1]


def _bars(axes: Axes, rows: list[LayerMacs | MacReport], unit: float, sign: str) -> None:
    values = {
        'always on': [row.always_on for row in rows],
        'read by gates': [row.masked - row.unread for row in rows],
        'gate nets': [row.gate_nets for row in rows],
        'read by nobody later': [row.unread for row in rows],
        'closed by gates': [max(row.original - row.always_on - row.masked, 0) for row in rows],
    }
    left = np.zeros(len(rows))
    for what, macs in values.items():
        widths = np.array(macs) / unit
        axes.barh(range(len(rows)), widths, left=left, height=0.8, color=_COLOURS[what], label=what)
        left += widths
    for row, (end, macs) in enumerate(zip(left, rows, strict=True)):
        done = f'{macs.macs / unit:.2g} {sign}'  # of gate nets alone
        text = f'{macs.macs / macs.original:.2f}' if macs.original else done
        axes.text(end, row, f' {text}', va='center', fontsize=SMALL - 1)
    tidy(axes, x=f'MACs [{sign}]; numbers: done / dense')
    axes.set_xlim(0, max(left) * 1.06)
