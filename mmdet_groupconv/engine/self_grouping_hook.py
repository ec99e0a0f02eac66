"""Lets SGC layers group themselves while a detector trains."""

from collections.abc import Callable

from mmengine import dist
from mmengine.registry import HOOKS
from torch import nn

from ..layers.checks import check_integer, check_number
from .mac_ratio_hook import MACRatioHook, bare_model
from .self_grouping import self_group, sgc_layers

_DONE = 'self_grouping/percentage'  # in the message hub, which checkpoints hold


@HOOKS.register_module()
class SelfGroupingHook(MACRatioHook):
    """Prunes the connections of SGC layers at given epochs (SG-CNN, 2020, section 3).

    The schemes: *global*: all the steps at one epoch, ``{3: [10, 20, 30, 40, 50, 60]}``, then
    fine-tune; *local and global*: fine-tune after each, ``{1: 10, 2: 20, ...}``. The masks are
    buffers, so checkpoints hold them; a resumed run doesn't repeat a step, in whichever iteration
    it was stopped. Logs the ratios of :class:`MACRatioHook`.

    steps: epoch (from 0; the step comes before it) -> percentage, or several in a row; the
    percentages rise. seed: of the k-means starts.

    Raises ValueError for steps that don't rise within (0, 100), for epochs that the run doesn't
    have, and for a model without SGC layers.
    """

    def __init__(self, steps: dict[int, float | list[float]], seed: int = 0) -> None:
        super().__init__()
        self.steps = _rising_steps(steps)
        check_integer('seed', seed, 'SelfGroupingHook', 0)
        self.seed = seed

    def check(self, model: nn.Module) -> None:
        """Raise ValueError where the model has no SGC layer."""
        if not sgc_layers(model):
            raise ValueError(
                f'SelfGroupingHook: {type(model).__name__} has no SGC layers, expected some, such '
                'as those of SGCResNet'
            )

    def before_run(self, runner) -> None:
        """Start to meter."""
        super().before_run(runner)
        runner.message_hub.update_info(_DONE, 0)  # a checkpoint's, where the run is resumed

    def before_train(self, runner) -> None:
        """Refuse steps that would never come."""
        late = [epoch for epoch in self.steps if not 0 <= epoch < runner.max_epochs]
        if late:
            raise ValueError(
                f'SelfGroupingHook steps at epoch {late[0]}, expected 0 to '
                f'{runner.max_epochs - 1}, as this {type(runner.train_loop).__name__} counts epochs'
            )

    def before_train_epoch(self, runner) -> None:
        """Take the steps of this epoch, the same in every process."""
        layers = sgc_layers(bare_model(runner)).values()
        for percentage in self.steps.get(runner.epoch, []):
            if percentage <= runner.message_hub.get_info(_DONE, 0):
                continue
            for layer in layers:
                self_group(layer, percentage, self.seed)
                dist.broadcast(layer.mask)  # other machines may round k-means otherwise
            runner.message_hub.update_info(_DONE, percentage)
            runner.logger.info(f'Pruned {percentage} % of {len(layers)} self-grouping layers')


def _rising_steps(steps: dict) -> dict[int, list[float]]:
    expected = 'percentages that rise from epoch to epoch, between 0 and 100'
    if not isinstance(steps, dict) or not steps:
        raise ValueError(
            f'steps={steps!r} of SelfGroupingHook, expected {expected}, in a dict by epoch'
        )
    by_epoch, last = {}, 0
    for epoch in sorted(steps, key=_epoch):
        step = steps[epoch]
        by_epoch[_epoch(epoch)] = list(step) if isinstance(step, list | tuple) else [step]
        for percentage in by_epoch[_epoch(epoch)]:
            name = f'steps[{epoch!r}]'
            check_number(name, percentage, 'SelfGroupingHook', expected, _between(last))
            last = percentage
    if not last:
        raise ValueError(f'steps={steps!r} of SelfGroupingHook, expected {expected}')
    return by_epoch


def _between(last: float) -> Callable[[float], bool]:
    return lambda percentage: last < percentage < 100


def _epoch(key: int | str) -> int:
    """Config files have them as integers, JSON and the command line as strings."""
    number = int(key) if isinstance(key, str) and key.strip().isdecimal() else key
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f'epoch {key!r} in steps of SelfGroupingHook, expected an integer')
    return number
