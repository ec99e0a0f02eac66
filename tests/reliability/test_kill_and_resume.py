"""Trainings of detectors that are killed, resumed, and equal to ones that were not."""

import json
import os
import runpy
import shutil
import signal
from pathlib import Path

import pytest
import torch

from mmdet_groupconv.checkpoints import latest_checkpoint

TRAIN = runpy.run_path(str(Path(__file__).resolve().parents[2] / 'tools/train.py'))
METHODS = 'msgc', 'dgc', 'flgc', 'sgc'


def lines(work_dir):
    """The lines of a run's ``scalars.json``, of all its starts, times and memory aside."""
    return [  # of one file for each second in which there was a start
        {key: v for key, v in json.loads(line).items() if 'time' not in key and key != 'memory'}
        for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]


@pytest.fixture
def assert_equal_runs(saved):
    """``assert_equal_runs(one, other, epoch=3)``: of two work dirs whose runs ended after it."""

    def assert_equal(one, other, epoch=3):
        one, other = (saved(work_dir / f'epoch_{epoch}.pth') for work_dir in (one, other))
        assert one.differs_in(other) == []
        assert one.history == other.history

    return assert_equal


KILLED = (
    dict(work_dir='killed', killed_at=6),
    dict(work_dir='killed', resume=True, cut_after=4),
    dict(work_dir='killed', resume=True, killed_at=7),
    dict(work_dir='killed', resume=True),
)


@pytest.mark.parametrize(
    'method', ['msgc', *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS[1:])]
)
def test_a_run_that_was_killed_three_times(
    tiny_detector_cfg, train_in_processes, assert_equal_runs, tmp_path, method
):
    cfg = tiny_detector_cfg(method)
    whole, first, second, third, last = train_in_processes(cfg, dict(work_dir='whole'), *KILLED)
    kept = {'epoch_1.pth', 'best_mac_ratio_epoch_1.pth', 'last_checkpoint', 'config.py'}
    assert whole['status'] == 0
    # In epoch 2.
    assert first['status'] == -signal.SIGKILL
    assert first['files'].keys() == kept
    # While the checkpoint of epoch 2 was written, after epoch 2 had begun again.
    assert second['status'] == -signal.SIGXFSZ
    (half,) = second['files'].keys() - kept
    assert half.startswith('.epoch_2.pth.')
    assert second['files'][half] == second['files']['epoch_1.pth'] // 2
    # In epoch 3.
    assert third['status'] == -signal.SIGKILL
    assert 'epoch_2.pth' in third['files']
    assert half not in third['files']
    assert last['status'] == 0
    assert last['files'].keys() == whole['files'].keys()
    assert (tmp_path / 'killed/last_checkpoint').read_text() == str(tmp_path / 'killed/epoch_3.pth')
    assert_equal_runs(tmp_path / 'whole', tmp_path / 'killed')
    expected = lines(tmp_path / 'whole')
    assert [line['step'] for line in expected] == [1, 2, 3, 4, 1, 5, 6, 7, 8, 2, 9, 10, 11, 12, 3]
    begun, again, further, done = expected[:6], expected[5:9], expected[5:12], expected[10:]
    assert lines(tmp_path / 'killed') == [*begun, *again, *further, *done]


@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize(
    ('workers', 'persistent'),
    [(0, False), *(pytest.param(2, lasting, marks=pytest.mark.slow) for lasting in (False, True))],
)
def test_a_seed_that_was_drawn_goes_on_too(
    tiny_detector_cfg, train, assert_equal_runs, workers, persistent
):
    cfg = tiny_detector_cfg('msgc')
    cfg.randomness = dict(seed=None)
    cfg.train_cfg.max_epochs = 2
    cfg.train_dataloader.update(num_workers=workers, persistent_workers=persistent)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 2
    whole = Path(train(cfg).work_dir)
    resumed = train(cfg, resume=True, load_from=str(whole / 'epoch_1.pth'))
    assert_equal_runs(whole, Path(resumed.work_dir), epoch=2)


@pytest.fixture
def refused(tiny_detector_cfg, tmp_path, capsys):
    """``refused(*arguments)``: what tools/train.py says when it ends with status 1."""

    def refused(*arguments):
        cfg = tiny_detector_cfg('msgc')
        cfg.train_dataloader.dataset.num_images = 2
        cfg.experiment_name = cfg.visualizer.name = tmp_path.name
        cfg.dump(tmp_path / 'config.py')
        work_dir = f'--work-dir={tmp_path / "work_dir"}'
        with pytest.raises(SystemExit) as end:
            TRAIN['main']([str(tmp_path / 'config.py'), work_dir, *arguments])
        assert end.value.code == 1
        lines = capsys.readouterr().err.splitlines()
        (line,) = (line for line in lines if line.startswith('error: '))
        assert not any('Traceback' in line for line in lines)
        return line

    return refused


def test_a_damaged_file_to_resume_is_named(refused, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    assert refused(f'--resume={path}') == f'error: checkpoint {path} not found'
    torch.save(dict(weight=torch.ones(999)), path)
    os.truncate(path, path.stat().st_size // 2)
    assert refused(f'--resume={path}').startswith(f'error: checkpoint {path} can not be read')
    assert not (tmp_path / 'work_dir').exists()


def test_a_full_disk_is_told_in_one_line(refused, tmp_path, small_files):
    small_files(10**6)
    path = tmp_path / 'work_dir/epoch_1.pth'
    assert refused() == f'error: {path} can not be written: File too large'
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ['config.py']


@pytest.mark.slow
def test_wherever_saving_is_killed_a_whole_checkpoint_is_there(
    tiny_detector_cfg, train_in_processes, train, saved, tmp_path
):
    cfg = tiny_detector_cfg('dgc')  # whose ratio falls, so that the second epoch is the best
    cfg.train_dataloader.dataset.num_images = 2
    cfg.train_cfg.max_epochs = 2
    begun = Path(train(cfg, train_cfg=dict(cfg.train_cfg, max_epochs=1)).work_dir)
    runs = [dict(work_dir=f'run{n}', resume=True, killed_before=n) for n in range(22)]
    for run in runs:  # whose pointer to the original is mended first
        shutil.copytree(begun, tmp_path / run['work_dir'])
    statuses = [run['status'] for run in train_in_processes(cfg, *runs)]
    assert statuses == [*[-signal.SIGKILL] * 20, *[0] * 2]  # after so many operations it is done
    found = []
    for run in runs:
        path, damaged = latest_checkpoint(tmp_path / run['work_dir'])
        assert damaged == []
        found.append(saved(path).meta['epoch'])
        for best in (tmp_path / run['work_dir']).glob('best*.pth'):
            saved(best)
    assert found == sorted(found)
    assert set(found) == {1, 2}
