"""Checkpoints of a run on a toy model; runs that are killed are in ../reliability."""

import itertools
import os
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend, register_backend
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmdet_groupconv.engine import WholeCheckpointHook
from mmdet_groupconv.engine.whole_files import UnwrittenError, WholeFiles

RUNS = itertools.count()


class Toy(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(256, 256)

    def forward(self, x, mode='tensor'):
        loss = self.linear(x).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


class Scores(BaseMetric):
    """Scores of validations, in their order; None is a validation without."""

    def __init__(self, scores) -> None:
        super().__init__()
        self.scores = iter(scores)

    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results):
        score = next(self.scores)
        return dict(acc=score, loss=score) if score is not None else {}


def names(folder):
    """Checkpoints of a folder; hidden files, too."""
    found = [path.name for path in Path(folder).iterdir() if path.is_file()]
    return sorted(name for name in found if '.pth' in name or name.startswith('.'))


@pytest.fixture
def toy(tmp_path):
    """``toy(max_epochs, scores, resume, **settings)``: a runner; settings are the hook's."""

    def build(max_epochs=3, scores=(1, 2, 3), resume=False, **settings):
        loader = dict(batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
        name = f'{tmp_path.name}-{next(RUNS)}'
        return Runner(
            model=Toy(),
            work_dir=str(tmp_path / 'work_dir'),
            train_dataloader=dict(dataset=[torch.ones(256)] * 2, **loader),
            val_dataloader=dict(dataset=[torch.ones(256)], **loader),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
            val_cfg=dict(),
            val_evaluator=[Scores(scores)],
            default_hooks=dict(checkpoint=dict(type='WholeCheckpointHook', interval=1, **settings)),
            experiment_name=name,
            visualizer=dict(type='Visualizer', name=name),
            resume=resume,
        )

    return build


@pytest.fixture
def work_dir(tmp_path):
    return tmp_path / 'work_dir'


def test_the_kept_files_and_the_pointer(toy, work_dir):
    toy(max_epochs=4, scores=range(4), max_keep_ckpts=2).train()
    assert names(work_dir) == ['epoch_3.pth', 'epoch_4.pth']
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_4.pth')
    assert torch.load(work_dir / 'epoch_4.pth', weights_only=False)['meta']['epoch'] == 4


def test_the_old_file_stays_until_the_new_one_is_written_and_named(toy, work_dir, monkeypatch):
    seen = []
    put, remove = WholeFiles.put, WholeFiles.remove

    def writing(self, obj, filepath):
        seen.append((f'write {Path(filepath).name}', names(work_dir)))
        put(self, obj, filepath)

    def removing(self, filepath):
        seen.append((f'remove {Path(filepath).name}', names(work_dir)))
        remove(self, filepath)

    monkeypatch.setattr(WholeFiles, 'put', writing)
    monkeypatch.setattr(WholeFiles, 'remove', removing)
    runner = toy(max_epochs=2, max_keep_ckpts=1)
    runner.train_loop.val_begin = 3
    runner.train()
    assert seen == [
        ('write epoch_1.pth', []),
        ('write last_checkpoint', ['epoch_1.pth']),
        ('write epoch_2.pth', ['epoch_1.pth']),
        ('write last_checkpoint', ['epoch_1.pth', 'epoch_2.pth']),
        ('remove epoch_1.pth', ['epoch_1.pth', 'epoch_2.pth']),
    ]


@pytest.mark.parametrize(
    ('save_best', 'expected'),
    [
        ('acc', ['best_acc_epoch_2.pth']),
        ('auto', ['best_acc_epoch_2.pth']),
        (['acc', 'loss'], ['best_acc_epoch_2.pth', 'best_loss_epoch_1.pth']),
    ],
)
def test_the_best_files(toy, work_dir, save_best, expected):
    toy(scores=(1, 2, 1), save_best=save_best, max_keep_ckpts=1).train()
    assert names(work_dir) == [*expected, 'epoch_3.pth']


@pytest.mark.parametrize('save_best', ['acc', 'auto', ['acc', 'loss']])
def test_validations_without_a_score_end_no_run(toy, work_dir, save_best):
    toy(scores=(None, 2, None), save_best=save_best, max_keep_ckpts=1).train()
    found = names(work_dir)
    assert [name for name in found if 'acc' in name] == ['best_acc_epoch_2.pth']
    assert 'epoch_3.pth' in found


def test_a_misspelt_score_is_named(toy):
    runner = toy(save_best='acc/top1', rule='greater')
    with pytest.raises(ValueError, match=r"save_best='acc/top1' .* one of acc, loss"):
        runner.train()


def test_the_best_file_stays_until_a_better_one_is_written(toy, work_dir, monkeypatch):
    toy(max_epochs=1, save_best='acc').train()
    monkeypatch.setattr(WholeFiles, 'put', lambda *_: pytest.fail('not written'))
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    runner = toy(max_epochs=2, scores=(2,), save_best='acc', resume=True)
    with pytest.raises(pytest.fail.Exception, match='not written'):
        runner.train()
    assert names(work_dir) == ['best_acc_epoch_1.pth', 'epoch_1.pth']


def test_a_resumed_run_remembers_the_best(toy, work_dir):
    toy(max_epochs=1, scores=(5,), save_best='acc').train()
    toy(max_epochs=3, scores=(4, 6), save_best='acc', resume=True).train()
    assert names(work_dir) == [
        'best_acc_epoch_3.pth', 'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'
    ]  # fmt: skip


def logged(work_dir, epoch):
    hub = torch.load(work_dir / f'epoch_{epoch}.pth', weights_only=False)['message_hub']
    return list(hub['log_scalars']['val/acc'].data[0]), hub['runtime_info']['best_score']


def test_a_checkpoint_holds_its_epoch_s_validation(toy, work_dir):
    toy(scores=(2, 1, 3), save_best='acc').train()
    assert [logged(work_dir, epoch) for epoch in (1, 2, 3)] == [
        ([2], 2), ([2, 1], 2), ([2, 1, 3], 3)
    ]  # fmt: skip
    toy(scores=(), save_best='acc', resume=True).train()  # none is repeated


def test_what_it_remembers_is_no_score(toy, work_dir):
    toy(max_epochs=2).train()
    (log,) = work_dir.glob('*/*.log')
    last = [line for line in log.read_text().splitlines() if 'Epoch(val)' in line][-1]
    assert re.findall(r'(\w+): ', last) == ['acc', 'loss', 'data_time', 'time']


def test_a_run_killed_in_a_validation_begins_with_it(toy, work_dir, monkeypatch):
    monkeypatch.setattr(Scores, 'process', lambda *_: pytest.fail('killed'))
    with pytest.raises(pytest.fail.Exception, match='killed'):
        toy(scores=(), save_best='acc').train()
    monkeypatch.undo()
    toy(scores=(9, 8, 7), save_best='acc', resume=True).train()
    assert logged(work_dir, 3) == ([9, 8, 7], 9)
    assert 'best_acc_epoch_1.pth' in names(work_dir)


def test_a_copied_folder_leaves_the_original_alone(toy, tmp_path, work_dir):
    toy(max_epochs=1, scores=(5,), save_best='acc', max_keep_ckpts=1).train()
    original = tmp_path / 'original'
    work_dir.rename(original)
    shutil.copytree(original, work_dir)
    (work_dir / 'last_checkpoint').write_text(str(original / 'epoch_1.pth'))
    toy(max_epochs=2, scores=(6,), save_best='acc', max_keep_ckpts=1, resume=True).train()
    assert names(original) == ['best_acc_epoch_1.pth', 'epoch_1.pth']
    assert names(work_dir) == ['best_acc_epoch_2.pth', 'epoch_2.pth']


def test_what_a_killed_run_had_not_removed_goes_when_it_is_resumed(toy, work_dir, monkeypatch):
    monkeypatch.setattr(WholeCheckpointHook, '_remove', lambda *_: pytest.fail('killed'))
    with pytest.raises(pytest.fail.Exception, match='killed'):
        toy(max_epochs=2, max_keep_ckpts=1).train()
    assert names(work_dir) == ['epoch_1.pth', 'epoch_2.pth']
    monkeypatch.undo()
    toy(max_epochs=2, max_keep_ckpts=1, resume=True).train()
    assert names(work_dir) == ['epoch_2.pth']


def test_what_a_killed_run_was_writing_goes_at_the_next_start(toy, work_dir):
    work_dir.mkdir()
    for name in ('.epoch_7.pth.12', '.last_checkpoint.3', '.best_acc_epoch_2.pth.4'):
        (work_dir / name).write_text('half')
    others = ['.epoch_7.pth', '.epoch_7.pth.swp', '.gitignore']
    for name in others:
        (work_dir / name).write_text('not ours')
    toy(max_epochs=1).train()
    assert names(work_dir) == [*others, 'epoch_1.pth']


@pytest.fixture
def small_files():
    """``small_files(bytes)``: writing more than that to one file fails, after as many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_run_with_the_last_checkpoint_whole(toy, work_dir, small_files):
    toy(max_epochs=1, max_keep_ckpts=1).train()
    before = (work_dir / 'epoch_1.pth').read_bytes()
    runner = toy(max_epochs=3, max_keep_ckpts=1, resume=True)
    small_files(len(before) // 2)
    with pytest.raises(UnwrittenError, match=r'work_dir/epoch_2.pth can not be written: File too'):
        runner.train()
    assert names(work_dir) == ['epoch_1.pth']
    assert (work_dir / 'epoch_1.pth').read_bytes() == before
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_1.pth')


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UnwrittenError, match=r'file/epoch_1.pth can not be written: '):
        WholeFiles().put(b'', tmp_path / 'file' / 'epoch_1.pth')


def test_checkpoints_may_lie_in_another_folder(toy, tmp_path, work_dir):
    leftover = tmp_path / 'out/work_dir/.epoch_1.pth.3'
    leftover.parent.mkdir(parents=True)
    leftover.write_text('half')
    toy(max_epochs=1, out_dir=str(tmp_path / 'out')).train()
    assert names(leftover.parent) == ['epoch_1.pth']
    assert names(work_dir) == []
    assert (work_dir / 'last_checkpoint').read_text() == str(leftover.with_name('epoch_1.pth'))


class Elsewhere(LocalBackend):
    """A user's own backend."""

    wrote: list[str] = []  # noqa: RUF012

    def put(self, obj, filepath) -> None:
        self.wrote.append(os.path.basename(filepath))
        super().put(obj, filepath)


def test_backends_of_a_user_s_own_are_kept(toy, work_dir):
    register_backend('elsewhere', Elsewhere, force=True)
    Elsewhere.wrote.clear()
    toy(max_epochs=2, max_keep_ckpts=1, backend_args=dict(backend='elsewhere')).train()
    assert set(Elsewhere.wrote) == {'epoch_1.pth', 'epoch_2.pth'}
    assert names(work_dir) == ['epoch_2.pth']


def test_iterations_are_kept_alike(toy, work_dir):
    toy(max_epochs=2, by_epoch=False, max_keep_ckpts=1).train()
    assert names(work_dir) == ['iter_4.pth']


@pytest.mark.parametrize('iteration', [2, 3])
def test_resuming_within_an_epoch_is_told(toy, work_dir, iteration):
    toy(max_epochs=2, by_epoch=False).train()
    (work_dir / 'last_checkpoint').write_text(str(work_dir / f'iter_{iteration}.pth'))
    runner = toy(max_epochs=2, by_epoch=False, resume=True)
    runner.train()
    (log,) = work_dir.glob(f'{runner.timestamp}/*.log')
    told = 'resumed at iteration 3, but 1 epochs have 2: ' in log.read_text()
    assert told == (iteration == 3)
