"""Random numbers that a resumed run draws as an uninterrupted one does."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import set_random_seed


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds Python, NumPy and PyTorch before each epoch, from the run's seed and the epoch.

    MMEngine's checkpoints hold the seed but not how far its numbers were used up; validation and
    loading use some, too. Data workers have seeds of their own; they are alike in both runs where
    they start anew with each epoch (``persistent_workers=False``) or there are none.
    """

    priority = 'VERY_HIGH'  # before hooks that draw numbers

    def before_train_epoch(self, runner) -> None:
        """The same numbers for every process, or not, as ``randomness.diff_rank_seed`` says."""
        apart = runner.cfg.get('randomness', {}).get('diff_rank_seed', False)
        set_random_seed((runner.seed + runner.epoch) % 2**32, diff_rank_seed=apart)
