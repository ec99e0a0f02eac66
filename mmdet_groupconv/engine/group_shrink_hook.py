"""Lets a trained layer reach its groups gradually."""

from mmengine.registry import HOOKS
from torch import nn

from ..layers import StaticGrouping
from ..layers.checks import check_number
from .mac_ratio_hook import MACRatioHook, bare_model


@HOOKS.register_module()
class GroupShrinkHook(MACRatioHook):
    """Shrinks what crosses groups, linearly, until nothing is left of it (ours).

    For layers whose groups are the same for every image and known from the start, as
    ``tools/group.py`` chooses them from trained weights. Until training progress `start` (0 ... 1)
    they are the dense layers that they were; from `stop` on groups alone. Validation and test see
    groups alone. Logs the ratios of :class:`MACRatioHook`.

    Raises ValueError for numbers out of range and for a model without such layers.
    """

    def __init__(self, start: float = 0.0, stop: float = 0.25) -> None:
        super().__init__()
        own, share = type(self).__name__, 'a share of the run in [0, 1]'
        check_number('start', start, own, share, lambda v: 0 <= v <= 1)
        check_number('stop', stop, own, f'{share} from start={start} on', lambda v: start <= v <= 1)
        self.start, self.stop = start, stop
        self._layers: list[StaticGrouping] = []

    def check(self, model: nn.Module) -> None:
        """Raise ValueError where the model has no such layer."""
        if not any(isinstance(module, StaticGrouping) for module in model.modules()):
            raise ValueError(
                f'GroupShrinkHook: {type(model).__name__} has no layers with fixed groups, '
                'expected some, such as those of FixedGroupResNet'
            )

    def before_run(self, runner) -> None:
        """Start to meter; find the layers."""
        super().before_run(runner)
        layers = bare_model(runner).modules()
        self._layers = [module for module in layers if isinstance(module, StaticGrouping)]

    def leak_at(self, progress: float) -> float:
        """What connections across groups are multiplied by after `progress` of the training."""
        if progress >= self.stop:
            return 0.0
        if progress <= self.start:
            return 1.0
        return (self.stop - progress) / (self.stop - self.start)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Set the layers' leak by the iteration alone: a resumed run goes on where it was."""
        leak = self.leak_at(runner.iter / runner.max_iters)
        for layer in self._layers:
            layer.leak = leak
        runner.message_hub.update_scalar('train/leak', leak)
