"""How many channels and filters each group has where groups are a partition (FLGC)."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ..gates import LayerGates
from .style import CYCLE, MEDIUM, RED, SMALL, layer_rows, new_figure, rows_height, text_colour, tidy


def plot_group_sizes(
    layers: list[LayerGates], title: str = 'Channels and filters of each group'
) -> Figure:
    """Two bars a layer, one colour a group; groups without channels or filters are named."""
    channels = [layer.connectivity().sum(axis=1) for layer in layers]
    filters = [layer.sizes for layer in layers]
    groups = max(len(sizes) for sizes in filters)
    colours = CYCLE if groups <= len(CYCLE) else mpl.colormaps['turbo'](np.linspace(0, 1, groups))
    figure = new_figure(8, rows_height(len(layers)), title)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, what, of_layers in zip(
        panels, ('input channels', 'filters'), (channels, filters), strict=True
    ):
        for row, sizes in enumerate(of_layers):
            shares = sizes / sum(sizes)
            left = np.concatenate([[0], np.cumsum(shares)[:-1]])
            axes.barh(row, shares, left=left, height=0.8, color=list(colours[: len(sizes)]))
            for colour, share, start, size in zip(colours, shares, left, sizes, strict=False):
                if share > 0.07:
                    axes.text(
                        start + share / 2, row, f'{size:.0f}', ha='center', va='center',
                        fontsize=SMALL - 1, color=text_colour(colour),
                    )  # fmt: skip
            empty = ', '.join(str(group) for group, size in enumerate(sizes) if not size)
            if empty:
                axes.text(1.01, row, f'{empty} empty', va='center', fontsize=SMALL - 1, color=RED)
        tidy(axes, x=f'share of the {what}')
        layer_rows(axes, [layer.name for layer in layers])
        axes.set_xlim(0, 1)
    panels[1].tick_params(axis='y', labelleft=False)
    handles = [mpl.patches.Patch(color=colours[g], label=f'{g}') for g in range(groups)]
    figure.legend(
        handles=handles, loc='outside lower center', ncols=min(groups, 16), fontsize=MEDIUM,
        frameon=False, title='group', title_fontsize=MEDIUM,
    )  # fmt: skip
    return figure
