import copy
import itertools

import pytest
from mmengine.hooks import Hook
from mmengine.runner import Runner


class Observer(Hook):
    """Calls a function with the model after each iteration, and keeps what it returns."""

    priority = 'VERY_LOW'

    def __init__(self, look) -> None:
        self.look = look
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.seen.append(self.look(runner.model))


@pytest.fixture
def train(tmp_path):
    """``train(cfg, look=None, **settings)``: a run under a name of its own; runner and sights.

    look: called with the model after each iteration; the second result is the list of what it
    returned. settings: attributes of a copy of the config.
    """
    numbers = itertools.count()

    def train(cfg, look=None, **settings):
        cfg = copy.deepcopy(cfg)
        name = f'{tmp_path.name}-{next(numbers)}'
        cfg.experiment_name = cfg.visualizer.name = name
        cfg.work_dir = str(tmp_path / name)
        for key, value in settings.items():
            cfg[key] = value
        runner = Runner.from_cfg(cfg)
        observer = Observer(look or (lambda model: None))
        runner.register_hook(observer)
        runner.train()
        return runner, observer.seen

    return train


@pytest.fixture
def scalars():
    """``scalars(runner, key)``: all values that a run logged."""
    return lambda runner, key: [float(v) for v in runner.message_hub.get_scalar(key).data[0]]
