"""How gates differ from image to image."""

import math

import numpy as np
from matplotlib.figure import Figure

from ..gates import LayerGates
from .style import BLUE, LIGHT, MEDIUM, ORANGE, layer_rows, new_figure, rows_height, tidy

_PARTS = ('always', BLUE), ('sometimes', ORANGE), ('never', LIGHT)


def plot_variation(
    layers: list[LayerGates], title: str = 'Connections read, over the images'
) -> Figure:
    """A bar a layer: shares of its connections that all, some and no images read."""
    shares = np.array([layer.variation() for layer in layers])
    figure = new_figure(6.5, rows_height(len(layers)), title)
    axes = figure.subplots()
    left = np.zeros(len(layers))
    for (name, colour), widths in zip(_PARTS, shares.T, strict=True):
        axes.barh(range(len(layers)), widths, left=left, height=0.8, color=colour, label=name)
        left += widths
    tidy(axes, x='share of filters x channels')
    layer_rows(axes, [layer.name for layer in layers])
    axes.set_xlim(0, 1)
    figure.legend(loc='outside upper right', ncols=3, fontsize=MEDIUM, frameon=False)
    return figure


def images_differ(shares: np.ndarray) -> bool:
    """Whether some images read clearly more than others; with DGC all read as much."""
    return len(shares) > 1 and float(np.ptp(shares)) > 0.001


def plot_extreme_images(
    shares: np.ndarray, images: list[np.ndarray], number: int = 6,
    title: str = 'Images that read least and most',
) -> Figure:  # fmt: skip
    """Thumbnails of the images that read least (above) and most (below), and all images' shares.

    shares: ``[N]``, what each image reads. images: N of ``[H, W, 3]`` uint8, RGB. number: of
    thumbnails in each row, fewer where there are not twice as many images.
    """
    order = np.argsort(shares, kind='stable')
    number = max(1, min(number, len(shares) // 2))
    rows = [order[:number], order[::-1][:number]]
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    side = 1.35
    height = 0.7 + 2 * (side * min(tallest, 2) + 0.25) + 1.4
    figure = new_figure(max(side * number + 0.6, 4.2), height, title)
    above, below = figure.subfigures(2, 1, height_ratios=[height - 1.5, 1.5])
    grid = above.subplots(2, number, squeeze=False)
    for name, axes_row, indices in zip(('least', 'most'), grid, rows, strict=True):
        for axes, index in zip(axes_row, indices, strict=True):
            axes.imshow(images[index])
            axes.set_xlabel(f'{shares[index]:.3f}', fontsize=MEDIUM, labelpad=2)
            axes.set_xticks([])
            axes.set_yticks([])
        axes_row[0].set_ylabel(name, fontsize=MEDIUM)
    axes = below.subplots()
    bins = min(24, max(4, math.isqrt(len(shares)) * 2))
    axes.hist(shares, bins=bins, color=BLUE)
    tidy(axes, x='share of the grouped MACs that an image needs', y='images')
    return figure
