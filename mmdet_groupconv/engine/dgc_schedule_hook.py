"""Closes DGC's gates step by step while a detector trains."""

from mmengine.registry import HOOKS
from torch import Tensor, nn

from ..layers import DGCConv2d, Gate, Macs
from .mac_ratio_hook import MACRatioHook, bare_model


@HOOKS.register_module()
class DGCScheduleHook(MACRatioHook):
    """Sets how many channels DGC layers drop, and adds ``loss_saliency`` (DGC, section 3.3).

    Progress is that of the whole run, ``iter / max_iters``, so a resumed run goes on where it was;
    the layers keep the count as state that checkpoints hold. The loss is `weight` times the sum
    over layers and heads of the batch's mean saliency. Logs the ratios of :class:`MACRatioHook`.

    Raises ValueError for a negative weight or a model without DGC layers.
    """

    def __init__(self, weight: float = 1e-5) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f'DGCScheduleHook weight={weight}, expected 0 or more')
        self.weight = weight
        self._saliencies: list[Tensor] = []

    def check(self, model: nn.Module) -> None:
        """Raise ValueError where the model has no DGC layer."""
        if not dgc_layers(model):
            raise ValueError(
                f'DGCScheduleHook: {type(model).__name__} has no DGC layers, expected some, such '
                'as those of DGCResNet'
            )

    def before_run(self, runner) -> None:
        """Start to listen to the gates."""
        super().before_run(runner)
        layers = dgc_layers(bare_model(runner))
        self._handles += [layer.register_gate_hook(self._listen) for layer in layers]

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Move every layer's count."""
        for layer in dgc_layers(bare_model(runner)):
            layer.set_progress(runner.iter / runner.max_iters)

    def losses(self, macs: Macs) -> dict[str, Tensor]:
        """The l1 term."""
        total = sum(self._saliencies)
        self._saliencies.clear()
        return dict(loss_saliency=self.weight * total)

    def _begin(self) -> None:
        super()._begin()
        self._saliencies.clear()

    def _listen(self, layer: nn.Module, gate: Gate, x: Tensor, y: Tensor) -> None:
        if layer.training:
            self._saliencies.append(gate.strength.mean(dim=(0, 2)).sum())


def dgc_layers(model: nn.Module) -> list[DGCConv2d]:
    """The DGC layers of a model."""
    return [module for module in model.modules() if isinstance(module, DGCConv2d)]
