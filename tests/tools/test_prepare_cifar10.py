"""tools/prepare_cifar10.py on small archives."""

import stat
import zipfile

import pytest

from mmdet_groupconv.classification import check_image_folder

IMAGES = {
    f'{split}/{label}/{split}{index}.png': f'{split} {label} {index}'.encode()
    for split, number in (('train', 3), ('val', 2))
    for label in ('cat', 'dog')
    for index in range(number)
}


@pytest.fixture(scope='module')
def main(tool):
    return tool('prepare_cifar10').main


@pytest.fixture
def place(tmp_path):
    """An empty folder beside the archive's."""
    (tmp_path / 'data').mkdir()
    return tmp_path / 'data'


def archive(tmp_path, files):
    path = tmp_path / 'images.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def assert_refused(main, path, out, capsys, complaint):
    with pytest.raises(SystemExit) as info:
        main([str(path), '--out', str(out)])
    assert info.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith('error: ')
    assert complaint in errors[-1]


def test_unpacks_the_folders_of_images(main, tmp_path, place, capsys):
    out = place / 'new/cifar10'
    assert main([str(archive(tmp_path, IMAGES)), '--out', str(out)]) == 0
    assert files_in(out) == IMAGES
    assert check_image_folder(str(out / 'train'), 2) == ['cat', 'dog']
    assert stat.S_IMODE(out.stat().st_mode) == 0o755
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f'{out}/train: 6 images',
        f'{out}/val: 4 images',
    ]
    assert [path.name for path in out.parent.iterdir()] == ['cifar10']


def test_a_relative_folder_is_made_where_one_is(main, tmp_path, place, monkeypatch):
    path = archive(tmp_path, IMAGES)
    monkeypatch.chdir(place)
    assert main([str(path), '--out', 'data/cifar10/']) == 0
    assert files_in(place / 'data/cifar10') == IMAGES


def test_a_folder_that_is_there_is_left_alone(main, tmp_path, place, capsys):
    out = place / 'cifar10'
    out.mkdir()
    (out / 'mine').write_text('kept')
    assert_refused(main, archive(tmp_path, IMAGES), out, capsys, 'exists already, expected a new')
    assert files_in(place) == {'cifar10/mine': b'kept'}


def test_a_missing_archive_is_named(main, tmp_path, place, capsys):
    assert_refused(main, tmp_path / 'no.zip', place / 'out', capsys, 'no.zip not found')
    assert list(place.iterdir()) == []


def test_another_file_than_an_archive_is_refused(main, tmp_path, place, capsys):
    (tmp_path / 'x.zip').write_text('no archive')
    assert_refused(main, tmp_path / 'x.zip', place / 'out', capsys, 'x.zip can not be read')
    assert list(place.iterdir()) == []


@pytest.mark.parametrize('offset', [0.3, 0.5, 0.7])
def test_a_damaged_archive_leaves_nothing_half_unpacked(main, tmp_path, place, capsys, offset):
    noise = bytes(i * i % 251 for i in range(3000))
    path = archive(tmp_path, {**IMAGES, 'val/cat/large.png': noise})
    content = bytearray(path.read_bytes())
    start = content.index(b'val/cat/large.png') + 17
    size = content.index(b'PK', start) - start
    content[start + int(size * offset)] ^= 0xFF
    path.write_bytes(content)
    assert_refused(main, path, place / 'out', capsys, 'images.zip can not be read')
    assert list(place.iterdir()) == []


def test_an_encrypted_archive_is_refused(main, tmp_path, place, capsys):
    path = archive(tmp_path, IMAGES)
    content = bytearray(path.read_bytes())
    for header, flags in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
        content[content.index(header) + flags] |= 1
    path.write_bytes(content)
    assert_refused(main, path, place / 'out', capsys, 'images.zip can not be read')
    assert list(place.iterdir()) == []


@pytest.mark.parametrize('keep', [0.2, 0.6, 0.95])
def test_an_archive_that_was_cut_off_leaves_nothing_half_unpacked(
    main, tmp_path, place, capsys, keep
):
    path = archive(tmp_path, IMAGES)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert_refused(main, path, place / 'out', capsys, 'images.zip can not be read')
    assert list(place.iterdir()) == []


def test_other_classes_for_validation_are_refused(main, tmp_path, place, capsys):
    path = archive(tmp_path, {**IMAGES, 'val/emu/0.png': b''})
    assert_refused(main, path, place / 'out', capsys, 'train and val have other classes')
    assert list(place.iterdir()) == []


@pytest.mark.parametrize('split', ['train', 'val'])
def test_an_archive_without_a_split_is_named(main, tmp_path, place, capsys, split):
    files = {name: content for name, content in IMAGES.items() if not name.startswith(split)}
    path = archive(tmp_path, {**files, f'other/{split}/cat/0.png': b''})
    complaint = f'archive {path} has no {split}/<class>/'
    assert_refused(main, path, place / 'out', capsys, complaint)
    assert list(place.iterdir()) == []


def test_names_that_lead_out_stay_inside(main, tmp_path, place):
    path = archive(tmp_path, {**IMAGES, '../../evil.txt': b'x', '/root.txt': b'y'})
    assert main([str(path), '--out', str(place / 'out')]) == 0
    assert sorted(files_in(tmp_path)) == sorted(
        ['images.zip', 'data/out/evil.txt', 'data/out/root.txt']
        + [f'data/out/{name}' for name in IMAGES]
    )
