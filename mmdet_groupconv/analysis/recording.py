"""What a network reads on some images, with what it costs and what they look like."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from ..macs import MacReport, count_macs, mean_report
from .gates import GateRecorder, LayerGates, amounts
from .pictures import plot_gates, plot_macs, thumbnails


@dataclass
class Recording:
    """layers: of the grouped layers. report: the MACs, means over images. images: thumbnails."""

    layers: list[LayerGates]
    report: MacReport
    images: list[np.ndarray]

    def figures(self) -> dict[str, Figure]:
        """The pictures that fit what was found, by name."""
        return plot_gates(self.layers, self.images) | dict(macs=plot_macs(self.report))

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
