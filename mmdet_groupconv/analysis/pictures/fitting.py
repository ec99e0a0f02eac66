"""The pictures that fit what was found."""

import numpy as np
from matplotlib.figure import Figure

from ..gates import LayerGates, amounts
from .connectivity import plot_clusters, plot_connectivity
from .density import plot_density
from .group_sizes import plot_group_sizes
from .variation import images_differ, plot_extreme_images, plot_variation


def plot_gates(layers: list[LayerGates], images: list[np.ndarray]) -> dict[str, Figure]:
    """Pictures by name: density and connectivity; others for the layers that they are about.

    images: thumbnails of those that were recorded, ``[H, W, 3]`` uint8, RGB.
    """
    found = dict(density=plot_density(layers), connectivity=plot_connectivity(layers))
    dynamic = [layer for layer in layers if not layer.static]
    if dynamic:
        found['variation'] = plot_variation(dynamic)
    shares = amounts(layers)
    if images_differ(shares):
        found['images'] = plot_extreme_images(shares, images)
    partitions = [layer for layer in layers if layer.is_partition]
    if partitions:
        found['group_sizes'] = plot_group_sizes(partitions)
    clusters = [layer for layer in layers if layer.static and not layer.is_partition]
    if clusters:
        found['clusters'] = plot_clusters(clusters)
    return found
