import pytest
import torch

from mmdet_groupconv.checkpoints import (
    check_writable,
    read_checkpoint,
    remove_leftovers,
    write_checkpoint,
)


def test_what_was_written_is_read(tmp_path):
    write_checkpoint(tmp_path / 'x.pth', {'a': torch.ones(2)}, dict(dataset_meta=dict(n=1)))
    state, meta = read_checkpoint(tmp_path / 'x.pth')
    assert torch.equal(state['a'], torch.ones(2))
    assert meta == dict(dataset_meta=dict(n=1))


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'x.pth'
    path.write_bytes(b'old')

    def fail(content, file):
        file.write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        write_checkpoint(path, {}, {})
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b'old']


def test_a_full_disk_is_an_os_error(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError('PytorchStreamWriter failed writing file')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match=r'x\.pth can not be written: PytorchStreamWriter failed'):
        write_checkpoint(tmp_path / 'x.pth', {}, {})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('os.access', lambda path, mode: False)
    with pytest.raises(ValueError, match=r'folder .* is not writable'):
        check_writable(tmp_path / 'y.pth', tmp_path / 'x.pth')


def test_a_missing_folder_and_the_input_itself_are_refused(tmp_path):
    source = tmp_path / 'x.pth'
    source.touch()
    check_writable(tmp_path / 'y.pth', source)
    with pytest.raises(ValueError, match=r'folder .* not found'):
        check_writable(tmp_path / 'no' / 'y.pth', source)
    with pytest.raises(ValueError, match='is a folder, expected a file'):
        check_writable(tmp_path, source)
    with pytest.raises(ValueError, match='is the input itself'):
        check_writable(source, source)


def test_the_input_may_be_an_address(tmp_path):
    (tmp_path / 'y.pkl').touch()
    check_writable(tmp_path / 'y.pkl', 'https://example.org/x.pth')


def test_leftovers_of_a_killed_process_are_told_from_other_files(tmp_path):
    names = ['.x.pth.7', '.last.7', '.x.pth.seven', '.x.pth', 'x.pth.7', 'x.pth']
    for name in names:
        (tmp_path / name).write_text('')
    remove_leftovers(tmp_path, '*.pth')
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
    remove_leftovers(tmp_path / 'none', '*')
