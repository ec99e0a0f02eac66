"""What all pictures share: colours, sizes, names, files."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb as to_rgb_shares
from matplotlib.figure import Figure

from ...checkpoints import whole_file

# Okabe and Ito's, which colour-blind people tell apart.
BLUE, ORANGE, GREEN, RED = '#0072B2', '#E69F00', '#009E73', '#D55E00'
SKY, PINK, YELLOW, BLACK = '#56B4E9', '#CC79A7', '#F0E442', '#222222'
CYCLE = BLUE, ORANGE, GREEN, RED, SKY, PINK, BLACK, YELLOW
GREY, LIGHT = '#8C8C8C', '#E3E3E3'
SHARES = 'viridis'  # for shares from 0 to 1
SMALL, MEDIUM, LARGE = 7, 8, 10  # points
ROW = 0.19  # inches that a layer's row takes
DPI = 150


def new_figure(width: float, height: float, title: str) -> Figure:
    """width, height: in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=LARGE, x=0.01, ha='left')
    return figure


def tidy(axes: Axes, title: str = '', x: str = '', y: str = '') -> None:
    """Small type, no box; titles."""
    axes.set_title(title, fontsize=MEDIUM, loc='left')
    axes.set_xlabel(x, fontsize=MEDIUM)
    axes.set_ylabel(y, fontsize=MEDIUM)
    axes.tick_params(labelsize=SMALL, length=2)
    axes.spines[['top', 'right']].set_visible(False)


def label(name: str) -> str:
    """A layer's name as short as it stays clear: ``backbone.layer1.0.conv1.conv``: less two."""
    return name.removeprefix('backbone.').removesuffix('.conv')


def stage_of(name: str) -> str:
    """The part of a network that a layer belongs to: ``layer1``, ``neck``, ``bbox_head``."""
    return label(name).split('.')[0]


def stages(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Layers' names by stage, in their order."""
    for stage, members in groupby(names, key=stage_of):
        yield stage, list(members)


def text_colour(background: tuple | str) -> str:
    """Black or white, whichever can be read there."""
    red, green, blue = to_rgb_shares(background)
    return 'black' if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else 'white'


def layer_rows(axes: Axes, names: list[str]) -> None:
    """Name the rows of a chart by layer, the first on top; lines between the stages."""
    axes.set_yticks(range(len(names)), [label(name) for name in names], fontsize=SMALL)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis='y', length=0)
    row = 0
    for _, members in stages(names):
        if row:
            axes.axhline(row - 0.5, color=BLACK, linewidth=0.6)
        row += len(members)


def rows_height(rows: int) -> float:
    """Inches of a chart with a row a layer."""
    return 1.1 + ROW * rows


def save(figure: Figure, path: str | Path) -> None:
    """Write a file whole or not at all; its suffix says in which format (.png, .svg, .pdf)."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:])


def to_rgb(figure: Figure) -> np.ndarray:
    """``[H, W, 3]`` uint8."""
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]
