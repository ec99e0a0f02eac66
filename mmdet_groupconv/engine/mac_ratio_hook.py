"""Counts a detector's MACs while it trains and is evaluated."""

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn

from ..macs import MacMeter, MacReport, count_proposals

MAC_RATIOS = 'mac_ratio', 'mac_ratio_detector'


@HOOKS.register_module()
class MACRatioHook(Hook):
    """Logs what is left of the dense detector's MACs; the base of every method's own hook.

    ``mac_ratio`` is the backbone's, as the papers count, ``mac_ratio_detector`` that of all the
    convolutions and linear layers of the detector; both of each batch's padded size. Training logs
    them (the first process its own; a RoI head's for as many boxes as the test settings let
    through, not as many as training samples), validation and test put their means over the images
    of all processes among the metrics.

    Works on any detector, by forward hooks on the model: no subclass is needed, and DDP, mixed
    precision and gradient accumulation see ordinary losses.
    """

    # Before LoggerHook, which prints what this one measured.
    priority = 'NORMAL'
    reads_gates = True

    def __init__(self) -> None:
        self._handles: list = []
        self._meter: MacMeter | None = None
        self._seen = torch.zeros(3, dtype=torch.float64)  # sums of both ratios, images
        self._left = 0  # images of this process that are still to come

    def check(self, model: nn.Module) -> None:
        """Raise ValueError where the hook has nothing to do on this model."""

    def losses(self, macs: MacReport) -> dict[str, Tensor]:
        """What the method adds to the losses of a training batch, and to its log."""
        return {}

    def before_run(self, runner) -> None:
        """Start to meter."""
        model = bare_model(runner)
        self.check(model)
        self._meter = MacMeter(model)
        self._meter.attach()
        self._handles = [
            model.register_forward_pre_hook(lambda *_: self._begin()),
            model.register_forward_hook(self._after_forward, with_kwargs=True),
        ]

    def after_run(self, runner) -> None:
        """Leave the model as it was."""
        self._meter.detach()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def before_val_epoch(self, runner) -> None:
        """Forget earlier images."""
        self._expect(runner.val_dataloader)

    def before_test_epoch(self, runner) -> None:
        """Forget earlier images."""
        self._expect(runner.test_dataloader)

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Report the mean ratios over the images of all processes."""
        self._report(runner, 'val', metrics)

    def after_test_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Report the mean ratios over the images of all processes."""
        self._report(runner, 'test', metrics)

    def _expect(self, loader) -> None:
        self._seen = torch.zeros_like(self._seen)
        # Samplers give each process as many images as the others, some for a second time.
        rank, processes = dist.get_dist_info()
        self._left = len(range(rank, len(loader.dataset), processes))

    def _begin(self) -> None:
        self._meter.reset()  # of a forward pass that failed
        self._meter.counting = True

    def _after_forward(self, model: nn.Module, args: tuple, kwargs: dict, output):
        # What activation checkpointing computes again isn't counted; its gates would hold memory.
        self._meter.counting = False
        mode = kwargs.get('mode')
        if mode == 'loss':
            count_proposals(self._meter, model)
            macs = self._meter.take()
            output.update(self.losses(macs))
            backbone, detector = _ratios(macs).detach().float()
            output.update(mac_ratio=backbone, mac_ratio_detector=detector)
        elif mode == 'predict':
            ratios = _ratios(self._meter.take())
            images = min(len(output), self._left)
            self._left -= images
            seen = torch.cat((ratios, ratios.new_ones(1))) * images
            self._seen = self._seen.to(ratios.device) + seen
        return output

    def _report(self, runner, mode: str, metrics: dict[str, float] | None) -> None:
        seen = self._seen.to(dist.get_comm_device()) if dist.is_distributed() else self._seen
        dist.all_reduce(seen)
        for name, total in zip(MAC_RATIOS, seen, strict=False):
            ratio = float(total / seen[2].clamp(min=1))
            runner.message_hub.update_scalar(f'{mode}/{name}', ratio)
            if metrics is not None:
                metrics[name] = ratio


def hook_class(settings: dict) -> type | None:
    """The class that a config names for a hook, None for none that is registered."""
    kind = settings['type']
    return HOOKS.get(kind) if isinstance(kind, str) else kind


def bare_model(runner) -> nn.Module:
    """The runner's model without the wrapper that distributes it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _ratios(macs: MacReport) -> Tensor:
    both = macs.part('backbone').ratio, macs.ratio
    tensors = [ratio for ratio in both if isinstance(ratio, Tensor)]
    like = tensors[0] if tensors else torch.zeros((), dtype=torch.float64)
    return torch.stack([like.new_tensor(r) if isinstance(r, float) else r for r in both])
