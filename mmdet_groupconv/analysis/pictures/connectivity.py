"""Which input channels each group reads."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ..gates import LayerGates
from .style import BLACK, MEDIUM, SHARES, SMALL, label, new_figure

_PIXELS = 300  # of a panel


def sort_connectivity(layer: LayerGates) -> tuple[np.ndarray, np.ndarray]:
    """The order of groups, large to small, and of channels: those read alike side by side.

    Returns ``[G]`` and ``[C]`` indices. Channels go by how many filters read them on most images,
    then by which groups do, then by how often.
    """
    groups = np.argsort(-layer.sizes, kind='stable')
    shares = layer.connectivity()[groups]
    pattern = shares > 0.5
    filters = layer.sizes @ layer.connectivity()
    mostly = layer.sizes[groups] @ pattern
    return groups, np.lexsort([-filters, *(~pattern)[::-1], -mostly])  # the last comes first


def plot_connectivity(
    layers: list[LayerGates], title: str = 'Which input channels each group reads'
) -> Figure:
    """A panel a layer: its groups by input channels, the share of images that read each."""
    figure, panels = _panels(len(layers), title, height=1.05)
    for axes, layer in zip(panels, layers, strict=True):
        groups, channels = sort_connectivity(layer)
        matrix = layer.connectivity()[groups][:, channels]
        image = _show(axes, matrix)
        count, width = matrix.shape
        _name(axes, layer, f'{count} group{"s" * (count > 1)} x {width}')
    _colour_bar(figure, image, 'share of images (and of levels, in towers) that read the channel')
    return figure


def plot_clusters(
    layers: list[LayerGates], title: str = 'Clusters: which channels each filter reads'
) -> Figure:
    """A panel a layer with fixed groups: its filters, those that read alike together, by channels.

    Lines separate the clusters, large to small.
    """
    figure, panels = _panels(len(layers), title, height=1.75)
    for axes, layer in zip(panels, layers, strict=True):
        mask, edges = cluster_mask(layer)
        image = _show(axes, mask)
        for edge in edges:
            axes.axhline(edge - 0.5, color='white', linewidth=0.5)
        filters, channels = mask.shape
        _name(axes, layer, f'{filters} x {channels}, {len(edges) + 1} clusters')
    _colour_bar(figure, image, 'read (1) or not (0)')
    return figure


def cluster_mask(layer: LayerGates) -> tuple[np.ndarray, np.ndarray]:
    """Filters x channels ``[K, C]``, both sorted, and the rows where another cluster begins."""
    groups, channels = sort_connectivity(layer)
    mask = layer.connectivity()[groups][:, channels]
    sizes = layer.sizes[groups]
    edges = np.cumsum(sizes[sizes > 0])[:-1]
    return np.repeat(mask, sizes, axis=0), edges


def _show(axes: Axes, matrix: np.ndarray) -> AxesImage:
    """Enlarged, so that matplotlib smooths only what is finer than pixels."""
    rows, columns = matrix.shape
    large = matrix.repeat(-(-_PIXELS // rows), axis=0).repeat(-(-_PIXELS // columns), axis=1)
    extent = -0.5, columns - 0.5, rows - 0.5, -0.5
    return axes.imshow(
        large.astype(np.float32), cmap=SHARES, vmin=0, vmax=1, aspect='auto', extent=extent
    )


def _panels(number: int, title: str, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(number, 4 if number <= 24 else 6)
    rows = math.ceil(number / columns)
    size = max(1.9 * columns, 4.5), 0.9 + (height + 0.25) * rows
    figure = new_figure(*size, title)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    panels = [next(grid) for _ in range(number)]
    for axes in list(grid):
        axes.remove()
    return figure, panels


def _name(axes: Axes, layer: LayerGates, size: str) -> None:
    axes.set_title(f'{label(layer.name)}', fontsize=SMALL, loc='left', pad=2, color=BLACK)
    axes.set_xlabel(f'{size}, {layer.amount().mean():.2f} read', fontsize=SMALL - 1, labelpad=1)
    axes.set_xticks([])
    axes.set_yticks([])


def _colour_bar(figure: Figure, image: AxesImage, what: str) -> None:
    bar = figure.colorbar(
        image, ax=figure.axes, location='bottom', fraction=0.03, aspect=50, shrink=0.6, pad=0.01
    )
    bar.set_label(what, fontsize=MEDIUM)
    bar.ax.tick_params(labelsize=SMALL)
