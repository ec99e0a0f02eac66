"""How much each head reads, now and over training."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..gates import LayerGates
from .style import (
    LIGHT,
    MEDIUM,
    SHARES,
    SMALL,
    label,
    layer_rows,
    new_figure,
    rows_height,
    stages,
    text_colour,
    tidy,
)

_NUMBERED = 8  # heads; numbers of more would not fit


def density_table(layers: list[LayerGates]) -> np.ndarray:
    """``[L, heads]``, the groups of each layer from large to small; NaN where it has no more."""
    table = np.full((len(layers), max(len(layer.sizes) for layer in layers)), np.nan)
    for row, layer in zip(table, layers, strict=True):
        density = layer.density()[np.argsort(-layer.sizes, kind='stable')]
        row[: len(density)] = density
    return table


def plot_density(layers: list[LayerGates], title: str = 'Share of channels read') -> Figure:
    """A row a layer, a column a head, and a column for all connections of the layer."""
    table = density_table(layers)
    whole = np.array([[layer.amount().mean()] for layer in layers])
    heads = table.shape[1]
    numbered = heads <= _NUMBERED
    cell = 0.42 if numbered else 0.42 * _NUMBERED / heads
    figure = new_figure(2.9 + cell * heads, rows_height(len(layers)), title)
    left, right = figure.subplots(1, 2, width_ratios=[heads * cell, 0.42], sharey=True)
    for axes, values, numbers in ((left, table, numbered), (right, whole, True)):
        image = axes.imshow(values, cmap=SHARES, vmin=0, vmax=1, aspect='auto')
        axes.set_facecolor(LIGHT)
        if numbers:
            _write(axes, values)
        tidy(axes)
        layer_rows(axes, [layer.name for layer in layers])
        axes.tick_params(axis='x', length=0)
    left.set_xticks(range(0, heads, 1 if numbered else 4))
    left.set_xlabel('head' if numbered else 'group, large to small', fontsize=MEDIUM)
    right.set_xticks([0], ['all'])
    right.tick_params(axis='y', labelleft=False)
    bar = figure.colorbar(image, ax=right, fraction=0.4, aspect=40, shrink=min(1, 14 / len(layers)))
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def plot_density_history(
    history: dict[str, tuple[list[float], list[float]]], step: str = 'epoch'
) -> Figure:
    """How the density of each layer went: a panel a stage, a curve a layer.

    history: layer -> (steps, densities).
    """
    panels = list(stages(list(history)))
    rows = -(-len(panels) // 2)
    figure = new_figure(9.5, 0.5 + 2.0 * rows, 'Share of channels read, over training')
    grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).flat
    for (stage, members), axes in zip(panels, grid, strict=False):
        colours = mpl.colormaps['viridis'](np.linspace(0, 0.92, len(members)))
        for name, colour in zip(members, colours, strict=True):
            shown = label(name).removeprefix(f'{stage}.')
            axes.plot(*history[name], color=colour, linewidth=1.2, marker='.', label=shown)
        tidy(axes, stage, x=step)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(0, 1.03)
        axes.grid(color=LIGHT, linewidth=0.6)
        columns = -(-len(members) // 9)
        axes.legend(
            fontsize=SMALL - 1, ncols=columns, loc='upper left', bbox_to_anchor=(1, 1.05),
            frameon=False, handlelength=1, columnspacing=0.8,
        )  # fmt: skip
    for axes in list(grid):
        axes.remove()
    return figure


def _write(axes: Axes, values: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = text_colour(mpl.colormaps[SHARES](value))
            axes.text(
                column, row, f'{value:.2f}', ha='center', va='center', fontsize=6, color=colour
            )
