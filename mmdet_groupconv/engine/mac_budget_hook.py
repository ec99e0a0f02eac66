"""Holds a detector with MSGC gates to a MAC budget."""

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn

from ..layers import GroupedConv2d, MacMeter


@HOOKS.register_module()
class MACBudgetHook(Hook):
    """Adds ``loss_macs`` to the losses and logs the MAC ratio (MSGC, section 3.5).

    ``loss_macs = weight * max(0, macs / original - target(t))``; ``target(t)`` falls linearly from
    1 to `target` while training progress goes from `start` to `stop` (0 ... 1), then stays. MACs
    are the backbone's, of each batch's padded size. Training logs ``mac_ratio`` and ``mac_target``;
    validation and test put ``mac_ratio``, the mean over their images, among the metrics.

    Works on any detector, by forward hooks on the model: no subclass is needed, and DDP, mixed
    precision and gradient accumulation see an ordinary loss.

    Raises ValueError for numbers out of range or a backbone without gated convolutions.
    """

    # Before LoggerHook, which prints what this one measured.
    priority = 'NORMAL'

    def __init__(
        self, target: float = 0.5, weight: float = 30.0, start: float = 0.0, stop: float = 0.5
    ) -> None:
        if not 0 < target <= 1:
            raise ValueError(f'MACBudgetHook target={target}, expected a ratio in (0, 1]')
        if weight < 0:
            raise ValueError(f'MACBudgetHook weight={weight}, expected 0 or more')
        if not 0 <= start <= stop <= 1:
            raise ValueError(
                f'MACBudgetHook start={start}, stop={stop}, expected 0 <= start <= stop <= 1'
            )
        self.target = target
        self.weight = weight
        self.start = start
        self.stop = stop
        self.target_now = 1.0
        self._handles: list = []
        self._meter: MacMeter | None = None
        self._seen = torch.zeros(2, dtype=torch.float64)  # sum of ratios, images

    def target_at(self, progress: float) -> float:
        """The target MAC ratio after `progress` (0 ... 1) of the training."""
        if progress >= self.stop:
            return self.target
        if progress <= self.start:
            return 1.0
        return 1 + (self.target - 1) * (progress - self.start) / (self.stop - self.start)

    def before_run(self, runner) -> None:
        """Start to meter the backbone."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        backbone = model.backbone
        if not any(isinstance(module, GroupedConv2d) for module in backbone.modules()):
            raise ValueError(
                f'MACBudgetHook: the backbone {type(backbone).__name__} has no gated '
                'convolutions, expected one such as MSGCResNet'
            )
        self._meter = MacMeter(backbone)
        self._meter.attach()
        self._handles = [
            model.register_forward_pre_hook(lambda *_: self._meter.reset()),
            model.register_forward_hook(self._after_forward, with_kwargs=True),
        ]

    def after_run(self, runner) -> None:
        """Leave the model as it was."""
        self._meter.detach()
        for handle in self._handles:
            handle.remove()

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Move the target; it follows the iteration, so a resumed run goes on where it was."""
        self.target_now = self.target_at(runner.iter / runner.max_iters)
        runner.message_hub.update_scalar('train/mac_target', self.target_now)

    def before_val_epoch(self, runner) -> None:
        """Forget earlier images."""
        self._seen = torch.zeros_like(self._seen)

    before_test_epoch = before_val_epoch

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Report the mean ratio over the images of all processes."""
        self._report(runner, 'val', metrics)

    def after_test_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Report the mean ratio over the images of all processes."""
        self._report(runner, 'test', metrics)

    def _after_forward(self, model: nn.Module, args: tuple, kwargs: dict, output):
        mode = kwargs.get('mode')
        if mode == 'loss':
            ratio = self._meter.take().ratio.float()
            output['loss_macs'] = self.weight * (ratio - self.target_now).clamp(min=0)
            output['mac_ratio'] = ratio.detach()
        elif mode == 'predict':
            images = len(output)
            ratio = self._meter.take().ratio
            self._seen = (
                self._seen.to(ratio.device) + torch.stack((ratio, ratio.new_ones(()))) * images
            )
        return output

    def _report(self, runner, mode: str, metrics: dict[str, float] | None) -> None:
        seen: Tensor = (
            self._seen.to(dist.get_comm_device()) if dist.is_distributed() else self._seen
        )
        dist.all_reduce(seen)
        ratio = float(seen[0] / seen[1].clamp(min=1))
        runner.message_hub.update_scalar(f'{mode}/mac_ratio', ratio)
        if metrics is not None:
            metrics['mac_ratio'] = ratio
