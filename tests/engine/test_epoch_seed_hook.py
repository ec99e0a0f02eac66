"""The seeds of epochs; what they are for is tested in classification/test_resume.py."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader, Dataset

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


class Draws(Dataset):
    """An item is its index and what each library draws then."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return index, random.random(), float(np.random.rand()), float(torch.rand(1))


def of_workers(epochs, loop=EpochBasedTrainLoop, seed=3, **loader):
    """What workers draw in each of the `epochs`, by image."""
    loader = DataLoader(Draws(), batch_size=2, collate_fn=list, shuffle=True, **loader)
    runner = SimpleNamespace(
        seed=seed, cfg=Config(), train_dataloader=loader, train_loop=loop.__new__(loop)
    )
    hook = EpochSeedHook()
    hook.before_train(runner)
    seen = []
    for runner.epoch in epochs:
        hook.before_train_epoch(runner)
        seen.append(dict(sorted((item[0], item[1:]) for batch in loader for item in batch)))
    return seen


@pytest.mark.parametrize('persistent', [False, True])
def test_workers_draw_what_they_would_have_drawn_in_a_run_from_the_beginning(persistent):
    whole = of_workers([0, 1, 2], num_workers=2, persistent_workers=persistent)
    assert of_workers([2], num_workers=2, persistent_workers=persistent) == whole[2:]


def test_an_image_has_its_numbers_whoever_reads_it():
    runs = [of_workers([0, 1], num_workers=1, persistent_workers=True)]
    runs += [of_workers([0, 1], num_workers=2, worker_init_fn=torch.manual_seed)]
    assert runs[0] == runs[1]


def test_each_image_epoch_and_seed_has_other_numbers_in_workers():
    runs = of_workers([0, 1], num_workers=1) + of_workers([0], num_workers=1, seed=4)
    for library in zip(*(numbers for run in runs for numbers in run.values()), strict=True):
        assert len(set(library)) == 18


def init(worker_id):
    random.random = lambda: 0.25


def test_a_workers_own_beginning_stays():
    (drawn,) = of_workers([0], num_workers=1, worker_init_fn=init)
    assert {numbers[0] for numbers in drawn.values()} == {0.25}


def test_workers_of_a_loop_without_epochs_draw_on():
    first, second = of_workers([0, 0], IterBasedTrainLoop, num_workers=1, persistent_workers=True)
    assert not set(first.values()) & set(second.values())


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
