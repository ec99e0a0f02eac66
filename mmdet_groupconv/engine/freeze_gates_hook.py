"""MSGC's gates become the same for every image, while weights still train."""

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from ..compiler.freezing import calibrated_gates
from ..grouping.shares import MSGCGates, gates_by_image
from ..layers.checks import check_integer, check_number
from .calibration import calibration_batches
from .mac_ratio_hook import bare_model


@HOOKS.register_module()
class FreezeGatesHook(Hook):
    """From `at` of the run on, MSGC's gates are those that most training images had (ours).

    A file for other runtimes has no gates by image. Frozen when it is written (``tools/export.py
    --freeze``) they cost AP, as weights never saw them; what is left of the run here mends that.
    Gate nets give the same masks for all images then, which checkpoints hold: a resumed run goes on
    as it was, and files and compact networks need no freezing.

    at: training progress, by which a budget should be met. batches: of training images, loaded as
    for a test, that gates are looked at on. keep: a head reads the channels that it read on more
    than this share of them.

    Raises ValueError for numbers out of range and a model without such gates.
    """

    def __init__(self, at: float = 0.5, batches: int = 32, keep: float = 0.5) -> None:
        own, share = type(self).__name__, 'a share in [0, 1]'
        check_number('at', at, own, share, lambda v: 0 <= v <= 1)
        check_number('keep', keep, own, share, lambda v: 0 <= v <= 1)
        check_integer('batches', batches, own)
        self.at = at
        self.batches = batches
        self.keep = keep
        self._frozen = False

    def before_train(self, runner) -> None:
        """Refuse a model without gates by image, before it trains half-way."""
        model = bare_model(runner)
        if not _gates(model):
            raise ValueError(
                f'FreezeGatesHook: {type(model).__name__} has no gates of MSGC, expected some, '
                'such as those of MSGCResNet'
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Freeze, once."""
        if self._frozen or runner.iter < self.at * runner.max_iters:
            return
        self._frozen = True
        model = bare_model(runner)
        gates = _gates(model)
        if any(of_layer.generator.held is None for of_layer in gates):
            runner.logger.info(f'gates are frozen on {self.batches} batches of training images')
            self._freeze(runner, model, gates)

    def _freeze(self, runner, model: nn.Module, gates: list[MSGCGates]) -> None:
        training = model.training
        model.eval()
        with torch.random.fork_rng(devices=[]):  # a run draws what it would have drawn
            batches = calibration_batches(runner.cfg, self.batches)
            found = calibrated_gates(model, batches, self.keep)
        model.train(training)
        for of_layer in gates:
            of_layer.generator.hold(found[model.get_submodule(of_layer.name)].mask[0])
            # Norms of processes differ, and so may what they find.
            dist.broadcast(of_layer.generator.conv[3].bias.data)


def _gates(model: nn.Module) -> list[MSGCGates]:
    return [gates for gates in gates_by_image(model) if isinstance(gates, MSGCGates)]
