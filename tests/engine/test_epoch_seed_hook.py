"""The seeds of epochs; what they are for is tested in classification/test_resume.py."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmdet_groupconv.engine import EpochSeedHook
from mmdet_groupconv.engine.launch import build_runner


def drawn(seed, epoch, **randomness):
    cfg = Config(dict(randomness=dict(seed=seed, **randomness)))
    EpochSeedHook().before_train_epoch(SimpleNamespace(seed=seed, epoch=epoch, cfg=cfg))
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_an_epoch_has_its_numbers_whatever_came_before():
    first = drawn(3, 5)
    torch.rand(7)
    assert drawn(3, 5) == first


def test_each_epoch_and_each_seed_has_other_numbers():
    numbers = [drawn(0, 0), drawn(0, 1), drawn(10, 0), drawn(10, 1)]
    for library in zip(*numbers, strict=True):
        assert len(set(library)) == 4


@pytest.mark.parametrize('apart', [False, True])
def test_ranks_differ_where_the_run_says_so(monkeypatch, apart):
    first = drawn(3, 5, diff_rank_seed=apart)
    monkeypatch.setattr('mmengine.runner.utils.get_rank', lambda: 2)
    assert (drawn(3, 5, diff_rank_seed=apart) != first) == apart


def test_the_largest_seed_works():
    assert drawn(2**32 - 1, 1) == drawn(0, 0)


@HOOKS.register_module()
class DrawsAtTheEpochsBeginning(Hook):
    """Says what a hook finds that draws numbers before an epoch."""

    def __init__(self) -> None:
        self.seen = []

    def before_train_epoch(self, runner) -> None:
        self.seen.append(float(torch.rand(1)))


def test_the_tools_runner_seeds_before_other_hooks_draw(tiny_cfg):
    tiny_cfg.launcher = 'none'
    tiny_cfg.randomness = dict(seed=4)
    tiny_cfg.custom_hooks = [dict(type='DrawsAtTheEpochsBeginning', priority='HIGH')]
    runner = build_runner(tiny_cfg, ('train',))
    assert any(isinstance(hook, EpochSeedHook) for hook in runner.hooks)
    for _ in range(2):
        runner.call_hook('before_train_epoch')
        torch.rand(3)
    (observer,) = (hook for hook in runner.hooks if isinstance(hook, DrawsAtTheEpochsBeginning))
    assert observer.seen == [drawn(4, 0)[2]] * 2
