"""A run's log, a line an epoch."""

import numpy as np

from ..pictures import Run
from ..pictures.runs import GATES

_MEANS = 'loss'  # of all iterations; of what else is logged, the last value
_LEFT_OUT = 'base_lr', 'data_time', 'epoch', 'iter', 'memory'


def epochs_of(run: Run) -> list[dict[str, float]]:
    """For each epoch: mean losses, seconds an iteration, the last learning rate and MAC ratios, and
    what validation found where there was one.

    Raises ValueError for a run that counts iterations alone.
    """
    if not run.by_epoch:
        raise ValueError(f'{run.name} counts iterations, expected a run of epochs')
    of_step = dict(zip(*run.train['epoch'], strict=True))
    epochs = []
    for epoch in sorted({int(e) for e in of_step.values()}):
        line = {'epoch': epoch}
        for name, (steps, values) in run.train.items():
            own = [v for s, v in zip(steps, values, strict=True) if of_step.get(s) == epoch]
            if own and name not in _LEFT_OUT:
                is_mean = name.startswith(_MEANS) or name == 'time'
                line[name] = _short(np.mean(own) if is_mean else own[-1])
        for name, (steps, values) in run.val.items():
            left_out = name.startswith(GATES) or name in (*_LEFT_OUT, 'time')
            if epoch in steps and not left_out:
                line[f'val {name}' if name in line else name] = _short(values[steps.index(epoch)])
        epochs.append(line)
    return epochs


def _short(value: float) -> float:
    return float(f'{value:.5g}')
