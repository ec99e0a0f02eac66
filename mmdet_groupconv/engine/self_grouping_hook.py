"""Lets SGC layers group themselves while a detector trains."""

from mmengine import dist
from mmengine.registry import HOOKS
from torch import nn

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
        self.steps = {
            int(epoch): list(step) if isinstance(step, list | tuple) else [step]
            for epoch, step in sorted(steps.items(), key=lambda item: int(item[0]))
        }
        percentages = [percentage for step in self.steps.values() for percentage in step]
        rising = all(a < b for a, b in zip([0, *percentages], [*percentages, 100], strict=True))
        if not percentages or not rising:
            raise ValueError(
                f'SelfGroupingHook steps={steps}, expected percentages that rise from epoch to '
                'epoch, between 0 and 100'
            )
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
