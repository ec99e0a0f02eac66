"""Random numbers that a resumed run draws as an uninterrupted one does."""

import random
from collections.abc import Callable

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, set_random_seed
from torch.utils.data import get_worker_info


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds Python, NumPy and PyTorch before each epoch, from the run's seed and the epoch.

    MMEngine's checkpoints hold the seed but not how far its numbers were used up; validation and
    loading use some, too. Data workers, which have numbers of their own, seed each image that they
    read, from the run's seed, the epoch and its index; so it doesn't matter how many there are and
    whether they live on (``persistent_workers=True``). A loop that knows no epochs has its workers
    seeded by MMEngine alone.
    """

    priority = 'VERY_HIGH'  # before hooks that draw numbers

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # which workers read

    def before_train(self, runner) -> None:
        """Make data workers seed each image; they start with the first epoch."""
        loader = runner.train_dataloader
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and loader.num_workers:
            loader.worker_init_fn = _SeedImages(loader.worker_init_fn, runner.seed, self._epoch)
            loader.generator = torch.Generator()  # whenever workers start, they draw from it alone

    def before_train_epoch(self, runner) -> None:
        """The same numbers for every process, or not, as ``randomness.diff_rank_seed`` says."""
        self._epoch.fill_(runner.epoch)
        apart = runner.cfg.get('randomness', {}).get('diff_rank_seed', False)
        set_random_seed((runner.seed + runner.epoch) % 2**32, diff_rank_seed=apart)


class _SeedImages:
    """What a data worker begins with: an image's random numbers become its own.

    epoch: int64 scalar in memory that processes share.
    """

    def __init__(self, init_fn: Callable[[int], None] | None, seed: int, epoch: torch.Tensor):
        self._init_fn, self._seed, self._epoch = init_fn, seed, epoch

    def __call__(self, worker_id: int) -> None:
        if self._init_fn is not None:
            self._init_fn(worker_id)
        self._dataset = get_worker_info().dataset
        self._dataset.__getitems__ = self._batch  # PyTorch asks for a batch by it, if there is one

    def _batch(self, indices: list) -> list:
        return [self._image(index) for index in indices]

    def _image(self, index):
        numbers = np.random.SeedSequence([self._seed, int(self._epoch), *np.ravel(index)])
        seed = int(numbers.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        return self._dataset[index]
