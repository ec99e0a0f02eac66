"""MAC reports of backbones and classifiers, for given sizes and given images."""

from dataclasses import asdict, dataclass, field

import torch
from mmdet.models.detectors import BaseDetector
from torch import Tensor, nn

from ..layers import MacMeter, Macs


@dataclass
class LayerRow:
    """MACs of one layer for one image. density: share of its connections that is open, or None."""

    name: str
    original: float
    macs: float
    density: float | None


@dataclass
class MacReport:
    """MACs for one image (a mean over several), in the convention of ``layers/macs.py``.

    original: dense host. always_on: what no gate touches. masked: filters x channels read.
    unread: work whose output no later gate reads. gate_nets: deciding the gates.
    layers: a row a layer, after its gates and without what nobody reads.
    """

    original: float
    always_on: float
    masked: float
    unread: float
    gate_nets: float
    layers: list[LayerRow] = field(default_factory=list)

    @property
    def macs(self) -> float:
        return self.always_on + self.masked - self.unread + self.gate_nets

    @property
    def ratio(self) -> float:
        return self.macs / self.original

    def to_dict(self) -> dict:
        """For JSON."""
        return dict(asdict(self), macs=self.macs, ratio=self.ratio)


@torch.no_grad()
def count_macs(
    model: nn.Module, input_size: tuple[int, int], images: Tensor | None = None
) -> MacReport:
    """Count the MACs of a network; of a detector, those of its backbone.

    input_size: (height, width) in pixels. images: ``[B, 3, height, width]``, normalised as for the
    model, whose gates are used; without it gates count as fully open.

    Raises ValueError where the images have another size than input_size.
    """
    network = model.backbone if isinstance(model, BaseDetector) else model
    if images is not None and tuple(images.shape[-2:]) != tuple(input_size):
        raise ValueError(
            f'images have size {tuple(images.shape[-2:])}, expected input_size={tuple(input_size)}'
        )
    x = images
    if x is None:
        x = next(network.parameters()).new_zeros(1, 3, *input_size)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with MacMeter(network) as meter:
            network(x)
    finally:
        for module, training in modes.items():
            module.training = training
    macs = meter.take()
    return to_report(macs if images is not None else _opened(macs))


def mean_report(reports: list[MacReport]) -> MacReport:
    """The mean over images of one network, layer by layer."""

    def mean(values) -> float | None:
        values = list(values)
        return None if None in values else sum(values) / len(values)

    numbers = 'original', 'macs', 'density'
    layers = [
        LayerRow(rows[0].name, *(mean(getattr(r, k) for r in rows) for k in numbers))
        for rows in zip(*(report.layers for report in reports), strict=True)
    ]
    parts = 'original', 'always_on', 'masked', 'unread', 'gate_nets'
    return MacReport(*(mean(getattr(r, k) for r in reports) for k in parts), layers)


def to_report(macs: Macs) -> MacReport:
    """Plain numbers from a meter's tensors."""
    rows = []
    for row in macs.layers:
        open_part = row.dense if row.mask is None else float(row.masked)
        density = None if row.mask is None else float(row.density.mean())
        original = 0.0 if row.is_gate_net else float(row.dense)
        rows.append(LayerRow(row.name, original, open_part - float(row.saved), density))
    parts = macs.original, macs.always_on, macs.masked, macs.unread, macs.gate_nets
    return MacReport(*(float(part) for part in parts), rows)


def _opened(macs: Macs) -> Macs:
    for row in macs.layers:
        row.unread = None
        row.mask = None if row.mask is None else torch.ones_like(row.mask)
    return macs
