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


@pytest.fixture
def of_workers(monkeypatch):
    """``of_workers(epochs, seed=3, batch=2, **loader)``: what a worker draws, by image, in each.

    In this process: what forks, in reliability/test_kill_and_resume.py, is slow.
    """

    def of_workers(epochs, seed=3, batch=2, **loader):
        dataset = Draws()
        info = SimpleNamespace(dataset=dataset)
        monkeypatch.setattr('mmdet_groupconv.engine.epoch_seed_hook.get_worker_info', lambda: info)
        runner = training(seed, DataLoader(dataset, num_workers=1, **loader))
        hook = EpochSeedHook()
        hook.before_train(runner)
        runner.train_dataloader.worker_init_fn(7)
        seen = []
        for runner.epoch in epochs:
            hook.before_train_epoch(runner)
            order = np.random.permutation(len(dataset)).reshape(-1, batch)
            items = [item for indices in order for item in dataset.__getitems__(indices.tolist())]
            seen.append({index: drawn for index, *drawn in sorted(items)})
        return seen

    return of_workers


def training(seed, loader, loop=EpochBasedTrainLoop):
    return SimpleNamespace(
        seed=seed, cfg=Config(), train_dataloader=loader, train_loop=loop.__new__(loop)
    )


def test_workers_draw_what_they_would_have_drawn_in_a_run_from_the_beginning(of_workers):
    whole = of_workers([0, 1, 2])
    assert of_workers([2]) == whole[2:]


def test_an_image_has_its_numbers_in_whatever_batch_it_is(of_workers):
    assert of_workers([0, 1]) == of_workers([0, 1], batch=3)


def test_each_image_epoch_and_seed_has_other_numbers_in_workers(of_workers):
    runs = of_workers([0, 1]) + of_workers([0], seed=4)
    for library in zip(*(numbers for run in runs for numbers in run.values()), strict=True):
        assert len(set(library)) == 18


def test_a_workers_own_beginning_stays(of_workers):
    begun = []
    of_workers([0], worker_init_fn=begun.append)
    assert begun == [7]


@pytest.mark.parametrize(('workers', 'loop'), [(0, EpochBasedTrainLoop), (1, IterBasedTrainLoop)])
def test_without_workers_or_epochs_a_loader_stays_as_it_is(workers, loop):
    loader = DataLoader(Draws(), num_workers=workers)
    EpochSeedHook().before_train(training(3, loader, loop))
    assert loader.worker_init_fn is None
    assert loader.generator is None


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
