"""A config's training schedule, shortened or stretched to a number of epochs."""

from mmengine.config import Config, ConfigDict

_LENGTHS = 'begin', 'end', 'T_max', 'step_size', 'total_steps'


def train_for(cfg: Config, epochs: int) -> None:
    """Train for so many epochs, with what falls by epoch falling as much faster or slower.

    What goes by iteration, a warm-up, say, stays. A step of the learning rate comes an epoch before
    the end at the latest.

    Raises ValueError for less than one epoch and for a loop that doesn't go by epochs.
    """
    if epochs < 1:
        raise ValueError(f'epochs={epochs}, expected 1 or more')
    loop = cfg.get('train_cfg') or {}
    if not loop.get('max_epochs'):
        raise ValueError(
            f'epochs={epochs} with train_cfg={dict(loop)}, expected a loop with max_epochs'
        )
    ratio = epochs / loop.max_epochs
    for scheduler in _schedulers(cfg.get('param_scheduler')):
        if scheduler.get('by_epoch', True):
            _scale(scheduler, ratio, epochs)
    loop.max_epochs = epochs
    if 'val_interval' in loop:
        loop.val_interval = min(loop.val_interval, epochs)


def _schedulers(found: object) -> list[ConfigDict]:
    """One, several, or several of each of several optimizers."""
    if not found:
        return []
    if isinstance(found, list | tuple):
        return list(found)
    return [found] if 'type' in found else [s for own in found.values() for s in _schedulers(own)]


def _scale(scheduler: ConfigDict, ratio: float, epochs: int) -> None:
    def scaled(length: int) -> int:
        return max(round(length * ratio), 1)

    for key in _LENGTHS:
        if scheduler.get(key):
            scheduler[key] = scaled(scheduler[key])
    if 'periods' in scheduler:
        scheduler.periods = [scaled(period) for period in scheduler.periods]
    if 'milestones' in scheduler:
        last = max(epochs - 1, 1)
        scheduler.milestones = [min(scaled(step), last) for step in scheduler.milestones]
