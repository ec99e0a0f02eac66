import copy
import itertools
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

DEMO = Path(__file__).resolve().parents[2] / 'configs/demo/retinanet_msgc-r18_scenes.py'


@pytest.fixture
def tiny_cfg(tmp_path) -> Config:
    """The demo's config, small: 4 iterations on 8 images of 64 pixels, 4 images for validation.

    The budget's weight is 30.
    """
    cfg = Config.fromfile(DEMO)
    cfg.work_dir = str(tmp_path / 'work_dir')
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.model.bbox_head.update(in_channels=8, feat_channels=8)
    for loader, images in ((cfg.train_dataloader, 8), (cfg.val_dataloader, 4)):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(tmp_path), num_images=images, image_size=64)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(
        tmp_path / 'annotations/val.json'
    )
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler = []
    cfg.custom_hooks[0].weight = 30.0
    cfg.default_hooks.logger.interval = 1
    cfg.experiment_name = cfg.visualizer.name = tmp_path.name  # one of a name for the process
    return cfg


@pytest.fixture
def repeatable_cfg(tiny_cfg) -> Config:
    """The same, but two runs of it are equal: seeded, no flips, each epoch's checkpoint kept."""
    tiny_cfg.randomness = dict(seed=0)
    tiny_cfg.train_dataloader.dataset.pipeline = [
        step for step in tiny_cfg.train_dataloader.dataset.pipeline if step.type != 'RandomFlip'
    ]
    tiny_cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    return tiny_cfg


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
