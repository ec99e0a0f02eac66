"""What a network reads on some images, with what it costs and what they look like."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import nn

from .gates import GateRecorder, LayerGates, amounts
from .macs import MacReport, count_macs, mean_report
from .pictures import (
    plot_clusters,
    plot_connectivity,
    plot_density,
    plot_extreme_images,
    plot_group_sizes,
    plot_macs,
    plot_variation,
    thumbnails,
)


@dataclass
class Recording:
    """layers: of the grouped layers. report: the MACs, means over images. images: thumbnails."""

    layers: list[LayerGates]
    report: MacReport
    images: list[np.ndarray]

    def figures(self) -> dict:
        """The pictures that fit what was found, matplotlib's figures by name."""
        found = dict(
            density=plot_density(self.layers),
            connectivity=plot_connectivity(self.layers),
            macs=plot_macs(self.report),
        )
        dynamic = [layer for layer in self.layers if not layer.static]
        if dynamic:
            found['variation'] = plot_variation(dynamic)
        shares = amounts(self.layers)
        if len(shares):
            found['images'] = plot_extreme_images(shares, self.images)
        partitions = [layer for layer in self.layers if layer.is_partition]
        if partitions:
            found['group_sizes'] = plot_group_sizes(partitions)
        clusters = [layer for layer in self.layers if layer.static and not layer.is_partition]
        if clusters:
            found['clusters'] = plot_clusters(clusters)
        return found

    def to_dict(self) -> dict:
        """The figures behind the pictures, for JSON."""
        return dict(
            number_of_images=len(self.images),
            amounts=_round(amounts(self.layers)),
            layers=[_row(layer) for layer in self.layers],
            macs=self.report.to_dict(),
        )


def record(model: nn.Module, batches: Iterable[dict]) -> Recording:
    """Run a detector or classifier on batches of one image, as its data loader yields them.

    Raises ValueError for a model without grouped layers, and for no batches.
    """
    reports, images = [], []
    with GateRecorder(model, max_images=2**31) as recorder:
        for batch in batches:
            images += thumbnails(model, batch, 1)
            inputs = model.data_preprocessor(batch, training=False)['inputs']
            reports.append(count_macs(model, tuple(inputs.shape[-2:]), inputs))
    if not reports:
        raise ValueError('no images to record gates on')
    return Recording(recorder.take(), mean_report(reports), images)


def _row(layer: LayerGates) -> dict:
    always, sometimes, never = layer.variation()
    return dict(
        name=layer.name,
        method=layer.method,
        static=layer.static,
        channels=layer.read.shape[2],
        filters=len(layer.assign),
        group_sizes=layer.sizes.tolist(),
        density=_round(layer.density()),
        share_read=round(float(layer.amount().mean()), 4),
        always=round(always, 4),
        sometimes=round(sometimes, 4),
        never=round(never, 4),
        connectivity=_round(layer.connectivity()),
        filter_groups=layer.assign.tolist(),
    )


def _round(values: np.ndarray) -> list:
    return np.round(values.astype(float), 4).tolist()
