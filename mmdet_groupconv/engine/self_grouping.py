"""The steps by which SGC layers group themselves (SG-CNN, Neural Networks 132, 2020, section 3)."""

import warnings

import numpy as np
import torch
from rich.progress import track
from scipy.cluster.vq import kmeans2
from torch import nn

from ..layers import SelfGrouping

_STARTS = 10
_REFINEMENTS = 20


def sgc_layers(model: nn.Module) -> dict[str, SelfGrouping]:
    """The SGC layers of a model, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, SelfGrouping)}


def self_group_model(model: nn.Module, percentage: float, step: float = 10, seed: int = 0) -> None:
    """Prune all SGC layers of a model to `percentage` in steps (the *global* scheme).

    Raises ValueError for a percentage or step out of (0, 100) or a model without SGC layers.
    """
    if not 0 < percentage < 100 or not 0 < step < 100:
        raise ValueError(
            f'percentage={percentage}, step={step}, expected numbers between 0 and 100'
        )
    layers = sgc_layers(model)
    if not layers:
        raise ValueError(
            f'{type(model).__name__} has no SGC layers, expected some, such as those of SGCResNet'
        )
    steps = [*np.arange(step, percentage, step).tolist(), percentage]
    work = [(layer, step) for step in steps for layer in layers.values()]
    for layer, step in track(work, f'pruning {len(layers)} layers in {len(steps)} steps'):
        self_group(layer, step, seed)


def self_group(layer: SelfGrouping, percentage: float, seed: int = 0) -> None:
    """One step of one layer: cluster its filters, then prune to `percentage` (0 ... 100)."""
    mask = layer.mask.double().cpu().numpy()
    labels, centroids = cluster(layer.importance().double().cpu().numpy(), layer.clusters, seed)
    _, inputs = group_inputs(labels, centroids, mask, percentage)
    layer.mask.copy_(torch.from_numpy(mask * inputs[labels]))


def cluster(vectors: np.ndarray, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """K-means of the rows of ``[K, C]``, the best of several seeded k-means++ starts by inertia.

    Returns labels ``[K]`` and centroids ``[G, C]`` of the groups that have members: `groups`, or
    fewer where rows coincide.
    """
    groups = min(groups, len(np.unique(vectors, axis=0)))
    best, best_inertia = None, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a cluster that lost its members is left out below
        for start in range(_STARTS):
            rng = np.random.default_rng([seed, start])
            centroids, labels = kmeans2(vectors, groups, iter=10, minit='++', seed=rng)
            inertia = ((vectors - centroids[labels]) ** 2).sum()
            if inertia < best_inertia:
                best, best_inertia = (centroids, labels), inertia
        centroids, labels = best
        for _ in range(_REFINEMENTS):  # `kmeans2` itself never stops early
            before = labels
            centroids, labels = kmeans2(vectors, centroids, iter=10, minit='matrix')
            if (labels == before).all():
                break
    members, labels = np.unique(labels, return_inverse=True)
    return labels, centroids[members]


def group_inputs(
    labels: np.ndarray, centroids: np.ndarray, mask: np.ndarray, percentage: float
) -> tuple[float, np.ndarray]:
    """What each group reads after a pruning step, and the threshold (section 3).

    labels: ``[K]``. centroids: ``[G, C]``. mask: ``[K, C]``, what earlier steps left.
    percentage: of all K*C connections, where the threshold lies (those already pruned count as
    zeros). Returns the threshold and ``[G, C]`` bool: the centroid, times the mask of the group's
    first member, is above it.
    """
    threshold = float(np.percentile(centroids[labels] * mask, percentage))
    first = np.unique(labels, return_index=True)[1]
    return threshold, centroids * mask[first] > threshold
