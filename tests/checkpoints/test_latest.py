"""Which checkpoint of a folder a run goes on from."""

import os
import shutil

import pytest
import torch

from mmdet_groupconv.checkpoints import latest_checkpoint


@pytest.fixture
def save(tmp_path):
    """``save(name, age=0)``: a checkpoint, `age` seconds old."""

    def save(name, age=0):
        path = tmp_path / name
        torch.save(dict(weight=torch.randn(64, 64)), path)
        os.utime(path, (1e9 - age, 1e9 - age))
        return str(path)

    return save


def cut(path, share=0.5):
    """Leave the first part of a file, as a process killed while it wrote."""
    modified = os.stat(path).st_mtime
    os.truncate(path, int(os.path.getsize(path) * share))
    os.utime(path, (modified, modified))


def point(tmp_path, name):
    (tmp_path / 'last_checkpoint').write_text(str(name))


def test_the_named_file_comes_first(tmp_path, save):
    named = save('epoch_1.pth', age=9)
    save('epoch_2.pth')
    point(tmp_path, named)
    assert latest_checkpoint(tmp_path) == (named, [])


def test_files_of_any_name_may_be_named(tmp_path, save):
    point(tmp_path, save('mine.pt'))
    assert latest_checkpoint(tmp_path) == (str(tmp_path / 'mine.pt'), [])


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.9, 0.99, 0.9999])
def test_a_part_of_a_file_is_passed_over_and_told(tmp_path, save, share):
    whole, part = save('epoch_1.pth', age=9), save('epoch_2.pth')
    cut(part, share)
    point(tmp_path, part)
    assert latest_checkpoint(tmp_path) == (whole, [part])


@pytest.mark.parametrize('named', [None, '', 'gone.pth', 'epoch_\n', '\x00', '.'])
def test_the_newest_is_found_where_none_is_named(tmp_path, save, named):
    save('epoch_9.pth', age=9)  # of an older run in this folder
    newest = save('iter_10.pth', age=1)
    save('other.pth')
    if named is not None:
        point(tmp_path, named)
    assert latest_checkpoint(tmp_path) == (newest, [])


def test_of_files_as_old_the_higher_number_counts(tmp_path, save):
    save('epoch_9.pth')
    last = save('epoch_10.pth')
    assert latest_checkpoint(tmp_path) == (last, [])


@pytest.mark.parametrize('copied', [False, True])
def test_a_folder_may_have_moved(tmp_path, save, copied):
    save('epoch_2.pth')
    moved = save('epoch_1.pth', age=9)
    original = tmp_path / 'elsewhere' / 'epoch_1.pth'
    point(tmp_path, original)
    if copied:
        original.parent.mkdir()
        shutil.copy(moved, original)
    assert latest_checkpoint(tmp_path) == (moved, [])


def test_checkpoints_may_lie_elsewhere(tmp_path, save):
    (tmp_path / 'out').mkdir()
    point(tmp_path, save('out/epoch_1.pth'))
    assert latest_checkpoint(tmp_path) == (str(tmp_path / 'out/epoch_1.pth'), [])


def test_other_storages_are_left_to_their_backends(tmp_path, save):
    save('epoch_1.pth')
    point(tmp_path, 's3://bucket/epoch_2.pth')
    assert latest_checkpoint(tmp_path) == ('s3://bucket/epoch_2.pth', [])


def test_there_may_be_none(tmp_path, save):
    assert latest_checkpoint(tmp_path / 'new') == (None, [])
    part = save('epoch_1.pth')
    cut(part)
    shutil.copy(part, tmp_path / '.epoch_2.pth.17')
    (tmp_path / 'epoch_3.pth').mkdir()
    assert latest_checkpoint(tmp_path) == (None, [part])
