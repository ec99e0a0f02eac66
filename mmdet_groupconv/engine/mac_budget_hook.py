"""Holds a detector with MSGC gates to a MAC budget."""

from mmengine import dist
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..layers import GroupedLayer, MaskGenerator
from ..layers.checks import check_number
from ..macs import MacReport
from .mac_ratio_hook import MAC_RATIOS, MACRatioHook, bare_model
from .span import Span

_MODES = 'val', 'train'
_TOLERANCE = 0.02


@HOOKS.register_module()
class MACBudgetHook(MACRatioHook):
    """Adds ``loss_macs`` to the losses and logs the MAC ratios (MSGC, section 3.5).

    ``loss_macs = weight * max(0, macs / original - target(t))``; ``target(t)`` falls linearly from
    1 to `target` while training progress goes from `start` to `stop` (0 ... 1), then stays.
    The ratio is the mean over the batches of all processes. Training logs ``mac_target`` beside the
    ratios of :class:`MACRatioHook`.

    scope: 'backbone' for a target relative to the backbone's MACs (the papers'), 'detector' for one
    relative to the whole detector's (ours).

    settle: training progress from which gates are those of evaluation, no longer sampled (ours; the
    paper samples to the end). In a short run most gates are still undecided by then: without it,
    weights never see the gates that they are tested with, and the ratio of evaluation is not the
    one that was held. From then on the loss is that of the distance, from below too: gates that
    only noise had opened are shut now, and their share is spent anew. With 0 nothing is ever
    sampled: noise shuts one channel in eight of gates that have just opened, more than the weights
    of a trained dense detector bear. slack: excess at which the loss is twice the published one
    (ours): multiplied by ``1 + excess / slack``, so that gates which lag behind a falling target
    are pushed harder the further they are; None for the published loss.

    Raises ValueError for numbers out of range, a scope without gated layers, and epochs that end
    with a batch of one image, where gate nets normalise over batches.
    """

    def __init__(
        self,
        target: float = 0.5,
        weight: float = 30.0,
        start: float = 0.0,
        stop: float = 0.5,
        scope: str = 'backbone',
        settle: float = 1.0,
        slack: float | None = None,
    ) -> None:
        super().__init__()
        own, share = type(self).__name__, 'a share of the run in [0, 1]'
        check_number('target', target, own, 'a ratio in (0, 1]', lambda v: 0 < v <= 1)
        check_number('weight', weight, own, 'a number of 0 or more', lambda v: v >= 0)
        check_number('settle', settle, own, share, lambda v: 0 <= v <= 1)
        if slack is not None:
            check_number('slack', slack, own, 'a number above 0, or None', lambda v: v > 0)
        if scope not in ('backbone', 'detector'):
            raise ValueError(f"scope={scope!r} of {own}, expected 'backbone' or 'detector'")
        self.target = target
        self.weight = weight
        self.falling = Span(start, stop, own)
        self.scope = scope
        self.settle = settle
        self.slack = slack
        self.target_now = 1.0
        self._settled = False
        self._nets: list[MaskGenerator] = []

    def target_at(self, progress: float) -> float:
        """The target MAC ratio after `progress` (0 ... 1) of the training."""
        return 1 + (self.target - 1) * self.falling.passed(progress)

    def noise_at(self, progress: float) -> float:
        """The amplitude of the gates' noise after `progress` (0 ... 1) of the training."""
        return 0.0 if progress >= self.settle else 1.0

    def check(self, model: nn.Module) -> None:
        """Raise ValueError where the scope has no gated layers."""
        scope = model.backbone if self.scope == 'backbone' else model
        if not any(isinstance(module, GroupedLayer) for module in scope.modules()):
            raise ValueError(
                f'MACBudgetHook: the {self.scope} {type(scope).__name__} has no gated '
                'convolutions, expected one such as MSGCResNet'
            )

    def before_run(self, runner) -> None:
        """Start to meter; find the nets that sample gates."""
        super().before_run(runner)
        self._nets = [m for m in bare_model(runner).modules() if isinstance(m, MaskGenerator)]

    def before_train(self, runner) -> None:
        """Refuse epochs that would end with an image alone, now rather than after the first one."""
        runner.model.train()  # as the loop does next: what is frozen shows only then
        needy = any(net.needs_a_batch for net in self._nets)
        if needy and isinstance(runner.train_loop, EpochBasedTrainLoop):
            _refuse_a_single_image(runner.train_dataloader)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Move target and noise by the iteration alone: a resumed run goes on where it was."""
        progress = runner.iter / runner.max_iters
        for net in self._nets:
            net.noise = self.noise_at(progress)
        self._settled = progress >= self.settle
        self.target_now = self.target_at(progress)
        runner.message_hub.update_scalar('train/mac_target', self.target_now)

    def after_train(self, runner) -> None:
        """Warn where the gates are not down at the target: the run was too short for them."""
        name = MAC_RATIOS[self.scope == 'detector']
        scalars = runner.message_hub.log_scalars
        found = next(
            (scalars[f'{m}/{name}'].current() for m in _MODES if f'{m}/{name}' in scalars), 0
        )
        if found > self.target + _TOLERANCE:
            runner.logger.warning(
                f'MACBudgetHook: {name} ended at {found:.3f}, target {self.target}: train longer, '
                f'with more than weight={self.weight}, or let the gates learn faster'
            )

    def losses(self, macs: MacReport) -> dict[str, Tensor]:
        """The budget's."""
        scope = macs.part('backbone') if self.scope == 'backbone' else macs
        over = _over_processes(scope.ratio.float()) - self.target_now
        over = over.abs() if self._settled else over.clamp(min=0)
        push = 1.0 if self.slack is None else 1 + over / self.slack
        return dict(loss_macs=self.weight * over * push)


def _refuse_a_single_image(loader: DataLoader) -> None:
    batches = loader.batch_sampler
    sampler, size = getattr(batches, 'sampler', None), getattr(batches, 'batch_size', None)
    if sampler is None or size is None:  # a batch sampler of another kind
        return
    last = 0 if getattr(batches, 'drop_last', False) else len(sampler) % size
    if size == 1 or last == 1:
        raise ValueError(
            f'train_dataloader: batch_size={size} leaves a batch of 1 of {len(loader.dataset)} '
            "images, expected 2 or more: gate nets' BatchNorm works on pooled features; set "
            'drop_last=True, another batch_size, or norm_eval=True of the backbone'
        )


def _over_processes(ratio: Tensor) -> Tensor:
    """The mean's value, this process's gradient: gradients are averaged over processes anyway."""
    if dist.get_world_size() == 1:
        return ratio
    mean = ratio.detach().clone()
    dist.all_reduce(mean, op='mean')
    return ratio + (mean - ratio.detach())
