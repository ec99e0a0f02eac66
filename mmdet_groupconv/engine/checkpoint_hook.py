"""Checkpoints that a killed run leaves whole or not at all."""

import os.path as osp
from collections import deque
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from ..checkpoints import remove_leftovers
from .mac_ratio_hook import MAC_RATIOS
from .whole_files import BACKEND, WholeFiles

_VALIDATED = 'last_validation'  # in the message hub; with 'val' in front it would be logged


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, with its arguments, for runs that may be killed at any moment.

    A file gets its name when it is whole, ``last_checkpoint`` names it next, and only then is an
    older one removed, the best one too; so there must be room for one file more than are kept.
    What a killed run was writing goes away at the next start. The tools put this hook in the place
    of each ``CheckpointHook``. Files on another storage (`backend_args`, `file_client_args` or a
    remote `out_dir`) are written by the backend asked for.

    A run resumed from the end of an epoch equals an uninterrupted one to the last digit, on one
    machine and as far as its operations are deterministic, with :class:`EpochSeedHook`, which the
    tools add as well. The epoch's validation belongs to it: the
    checkpoint is written again when that is done, and a run that was killed before begins with it.
    From a checkpoint within an epoch (``by_epoch=False``) weights, optimizer,
    schedules and counts are exact, but random numbers aren't those that the run would have drawn.
    ``IterBasedTrainLoop`` goes on with the next batch; ``EpochBasedTrainLoop`` begins the epoch
    again while its iterations count on, and says so.

    Raises UnwrittenError, an OSError, where a file can't be written, and ValueError where
    `save_best` is no score of the validation; one that gives none at all is only warned of.
    """

    def before_train(self, runner) -> None:
        """Choose the backend; clear away and make up for what a killed run had begun."""
        where = str(self.out_dir or runner.work_dir)
        chosen = self.backend_args is not None or self.file_client_args is not None
        if not chosen and '://' not in where:
            self.backend_args = dict(backend=BACKEND)
        super().before_train(runner)
        if is_main_process():
            remove_leftovers(runner.work_dir, 'last_checkpoint')
            if '://' not in str(self.out_dir):
                remove_leftovers(self.out_dir, f'*{Path(self.filename_tmpl).suffix}')
        _warn_within_epoch(runner)
        if self._misses_validation(runner):
            runner.val_loop.run()

    def after_val_epoch(self, runner, metrics: dict) -> None:
        """Save the best checkpoint, then the latest again, with what the validation found."""
        last, self.last_ckpt = self.last_ckpt, None  # which the parent does for a best one alone
        super().after_val_epoch(runner, metrics)
        self.last_ckpt = last
        step = runner.epoch if self.by_epoch else runner.iter
        if last is not None and last == self._path(step):
            runner.message_hub.update_info(_VALIDATED, step)
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)

    def _misses_validation(self, runner) -> bool:
        loop, epoch = runner.train_loop, runner.epoch
        if not (self.by_epoch and isinstance(loop, EpochBasedTrainLoop) and runner.val_loop):
            return False
        due = epoch % loop.val_interval == 0 or epoch == loop.max_epochs
        done = runner.message_hub.get_info(_VALIDATED, 0)
        return epoch > 0 and epoch >= loop.val_begin and due and done != epoch

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        outdated: list[int] = []
        if self.max_keep_ckpts > 0:
            steps = list(dict.fromkeys((*self.keep_ckpt_ids, step)))
            outdated = steps[: -self.max_keep_ckpts]
            self.keep_ckpt_ids = deque(steps, self.max_keep_ckpts)
            # The outdated too: a run killed before they are removed does so when it is resumed.
            runner.message_hub.update_info('keep_ckpt_ids', steps)
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            pointer = osp.join(runner.work_dir, 'last_checkpoint')
            WholeFiles().put_text(self.last_ckpt, pointer)
        for old in outdated:
            self._remove(self._path(old))

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        if not self.save_best or not self._has_scores(runner, metrics):
            return
        # The parent removes the former best one first, where it knows of one.
        former = self._best
        self._best = dict.fromkeys(former)
        super()._save_best_checkpoint(runner, metrics)
        new = self._best
        self._best = {name: new[name] or former[name] for name in former}
        kept = {osp.basename(path) for path in self._best.values() if path}
        for name in {osp.basename(path) for path in former.values() if path} - kept:
            # In this folder: a copy of a run's folder leaves the original alone.
            self._remove(self.file_backend.join_path(self.out_dir, name))

    def _has_scores(self, runner, metrics: dict) -> bool:
        """Whether there is what `save_best` asks for: CocoMetric gives nothing without boxes."""
        given = {key.partition('/')[0] for key in metrics if key not in MAC_RATIOS}
        wanted = [key for key in self.key_indicators if key != 'auto' or not given]
        missing = [key for key in wanted if key not in metrics]
        for key in missing:
            if key.partition('/')[0] in given:
                raise ValueError(
                    f'save_best={key!r} is no score of the validation, expected one of '
                    f'{", ".join(metrics)}'
                )
        if missing:
            runner.logger.warning('no best checkpoint yet: the validation gave no score')
        return not missing

    @property
    def _best(self) -> dict[str, str | None]:
        """The best checkpoints by metric; of a single metric, which may be 'auto', by ''."""
        single = len(self.key_indicators) == 1
        return {'': self.best_ckpt_path} if single else self.best_ckpt_path_dict

    @_best.setter
    def _best(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths['']
        else:
            self.best_ckpt_path_dict = paths

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))

    def _remove(self, path: str) -> None:
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)


def _warn_within_epoch(runner) -> None:
    expected = runner.epoch * len(runner.train_dataloader)
    if isinstance(runner.train_loop, EpochBasedTrainLoop) and runner.iter != expected:
        runner.logger.warning(
            f'resumed at iteration {runner.iter}, but {runner.epoch} epochs have {expected}: the '
            'checkpoint was saved within an epoch, which begins again, or with other batches; '
            'schedules by iteration are that much off'
        )
