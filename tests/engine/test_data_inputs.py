"""What is checked of the data before a run writes anything."""

import pytest
from mmengine.config import Config

from mmdet_groupconv.engine.data_inputs import check_data


def folders(root, **splits):
    """Folders of classes: ``folders(root, train='ab')`` makes train/a and train/b."""
    for split, classes in splits.items():
        for name in classes:
            (root / split / name).mkdir(parents=True)
            (root / split / name / 'image.jpg').touch()


def data_cfg(root, num_classes=2, wrap=lambda dataset: dataset):
    loaders = {
        f'{mode}_dataloader': dict(
            dataset=wrap(dict(type='ImageFolder', data_root=str(root / mode), pipeline=[]))
        )
        for mode in ('train', 'val')
    }
    return Config(dict(model=dict(num_classes=num_classes), **loaders))


def test_image_folders_with_the_same_classes_are_fine(tmp_path):
    folders(tmp_path, train='ab', val='ab')
    check_data(data_cfg(tmp_path), ('train', 'val', 'test'))


def test_only_what_a_run_reads_is_checked(tmp_path):
    folders(tmp_path, val='ab')
    check_data(data_cfg(tmp_path), ('val',))
    with pytest.raises(FileNotFoundError, match=r'image folder .*/train not found'):
        check_data(data_cfg(tmp_path), ('train', 'val'))


def test_folders_within_wrappers_are_found(tmp_path):
    wrap = lambda dataset: dict(type='ConcatDataset', datasets=[dataset])  # noqa: E731
    with pytest.raises(FileNotFoundError, match=r'image folder .*/train not found'):
        check_data(data_cfg(tmp_path, wrap=wrap), ('train',))


@pytest.mark.parametrize(('train', 'val', 'split'), [('abc', 'ab', 'train'), ('ab', 'a', 'val')])
def test_a_folder_with_another_number_of_classes_is_named(tmp_path, train, val, split):
    folders(tmp_path, train=train, val=val)
    with pytest.raises(ValueError, match=rf'/{split} has \d class folders, .*num_classes=2'):
        check_data(data_cfg(tmp_path), ('train', 'val'))


@pytest.mark.parametrize(
    ('train', 'val', 'has', 'odd', 'lacks'),
    [
        ('abc', 'abd', 'train', 'c', 'val'),
        ('bcd', 'abc', 'val', 'a', 'train'),
        ('abc', 'bcd', 'train', 'a', 'val'),
    ],
)
def test_other_classes_for_validation_are_named(tmp_path, train, val, has, odd, lacks):
    folders(tmp_path, train=train, val=val)
    message = rf"/{has} has a class '{odd}' that .*/{lacks} lacks, expected the same"
    with pytest.raises(ValueError, match=message):
        check_data(data_cfg(tmp_path, num_classes=3), ('train', 'val'))
