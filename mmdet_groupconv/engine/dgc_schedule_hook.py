"""Closes DGC's gates step by step while a detector trains."""

import torch
from mmengine.registry import HOOKS
from torch import Tensor, nn

from ..layers import DGCConv2d
from ..layers.checks import check_number
from ..layers.dgc import START, STOP, check_gate_factor
from ..macs import MacReport
from .mac_ratio_hook import MACRatioHook, bare_model
from .span import Span


@HOOKS.register_module()
class DGCScheduleHook(MACRatioHook):
    """Sets how many channels DGC layers drop, and adds ``loss_saliency`` (DGC, section 3.3).

    start, stop: training progress until which no channel is dropped, and from which all are that
    `gate_factor` leaves out. Progress is that of the whole run, ``iter / max_iters``, so a resumed
    run goes on where it was; the layers keep the count as state that checkpoints hold. The loss is
    `weight` times the sum over layers and heads of the batch's mean saliency. Logs the ratios of
    :class:`MACRatioHook`. gate_factors: of layers by name, in the place of their own (ours).

    Raises ValueError for numbers out of range, for a model without DGC layers, and for names that
    none of them has.
    """

    def __init__(
        self,
        weight: float = 1e-5,
        start: float = START,
        stop: float = STOP,
        gate_factors: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        own = type(self).__name__
        check_number('weight', weight, own, 'a number of 0 or more', lambda v: v >= 0)
        self.weight = weight
        self.gate_factors = dict(gate_factors or {})
        for name, factor in self.gate_factors.items():
            check_gate_factor(factor, own, f'gate_factors[{name!r}]')
        self.dropping = Span(start, stop, own)
        self._layers: dict[str, DGCConv2d] = {}

    def check(self, model: nn.Module) -> None:
        """Raise ValueError where the model has no DGC layer, or not those with factors."""
        layers = dgc_layers(model)
        if not layers:
            raise ValueError(
                f'DGCScheduleHook: {type(model).__name__} has no DGC layers, expected some, such '
                'as those of DGCResNet'
            )
        unknown = [name for name in self.gate_factors if name not in layers]
        if unknown:
            raise ValueError(
                f'DGCScheduleHook: gate_factors has {unknown[0]!r}, expected names of DGC layers '
                f'of {type(model).__name__} such as {next(iter(layers))!r}'
            )

    def before_run(self, runner) -> None:
        """Start to meter; what it sees of the gates holds their saliencies too."""
        super().before_run(runner)
        self._layers = dgc_layers(bare_model(runner))
        for name, factor in self.gate_factors.items():
            self._layers[name].gate_factor = factor

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Move every layer's count."""
        for layer in self._layers.values():
            span = self.dropping
            layer.set_progress(runner.iter / runner.max_iters, span.start, span.stop)

    def losses(self, macs: MacReport) -> dict[str, Tensor]:
        """The l1 term; none where all layers are frozen or saw no map (a RoI head's, say)."""
        saliencies = [
            gate.strength.mean(dim=(0, 2)).sum()
            for row in macs.layers
            if row.name in self._layers and self._layers[row.name].training
            for gate in row.gates
            if len(gate.strength)
        ]
        if not saliencies:
            return {}
        return dict(loss_saliency=self.weight * torch.stack(saliencies).sum())


def dgc_layers(model: nn.Module) -> dict[str, DGCConv2d]:
    """The DGC layers of a model, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, DGCConv2d)}
