import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from PIL import Image
from torchvision.transforms import v2

from mmdet_groupconv.classification import ImageFolder, check_image_folder


def test_images_come_as_uint8_in_rgb_with_the_number_of_their_class(image_folder):
    root = image_folder(classes=3, train=2)
    dataset = ImageFolder(str(root / 'train'), [])
    assert len(dataset) == 6
    item = dataset[2]
    assert item.keys() == {'inputs', 'data_samples'}
    assert item['inputs'].dtype == torch.uint8
    pixels = np.array(Image.open(root / 'train/class1/0.png'))
    assert torch.equal(item['inputs'], torch.from_numpy(pixels).permute(2, 0, 1))
    assert item['data_samples'] == 1


def test_classes_are_numbered_by_their_sorted_names(image_folder):
    root = image_folder(classes=3, train=1) / 'train'
    (root / 'class0').rename(root / 'zebra')
    (root / 'class1').rename(root / 'Zoo')  # capitals come first
    dataset = ImageFolder(str(root), [])
    assert dataset.metainfo == dict(classes=('Zoo', 'class2', 'zebra'))
    assert check_image_folder(str(root)) == ['Zoo', 'class2', 'zebra']
    labels = {path.split('/')[-2]: label for path, label in dataset.samples}
    assert labels == dict(Zoo=0, class2=1, zebra=2)


@pytest.mark.parametrize(('mode', 'value', 'rgb'), [
    ('L', 90, (90, 90, 90)),
    ('CMYK', (255, 0, 0, 0), (0, 255, 255)),
    ('RGBA', (10, 20, 30, 255), (10, 20, 30)),
])  # fmt: skip
def test_files_of_other_colour_modes_come_in_rgb(tmp_path, mode, value, rgb):
    (tmp_path / 'a').mkdir()
    file = 'x.png' if mode == 'RGBA' else 'x.jpg'
    Image.new(mode, (8, 8), value).save(tmp_path / 'a' / file)
    image = ImageFolder(str(tmp_path), [])[0]['inputs']
    assert image.shape == (3, 8, 8)
    assert image.float().mean(dim=(1, 2)).tolist() == pytest.approx(rgb, abs=6)  # of JPEG


def test_the_pipeline_s_steps_are_taken_in_their_order(image_folder):
    root = str(image_folder() / 'train')
    pipeline = [dict(type='Resize', size=(40, 20)), dict(type='Pad', padding=2)]
    assert ImageFolder(root, pipeline)[0]['inputs'].shape == (3, 44, 24)
    assert ImageFolder(root, pipeline[::-1])[0]['inputs'].shape == (3, 40, 20)
    assert pipeline == [dict(type='Resize', size=(40, 20)), dict(type='Pad', padding=2)]


def test_random_steps_follow_pytorch_s_seed(image_folder):
    dataset = ImageFolder(
        str(image_folder() / 'train'),
        [dict(type='RandomCrop', size=32, padding=4), dict(type='RandomHorizontalFlip')],
    )

    def draw():
        torch.manual_seed(3)
        return torch.stack([dataset[0]['inputs'] for _ in range(5)])

    first = draw()
    assert torch.equal(draw(), first)
    assert len(first.unique(dim=0)) > 1


@pytest.mark.parametrize('name', ['LoadImageFromFile', 'functional', None, '_transform'])
def test_a_transform_that_torchvision_lacks_is_named(image_folder, name):
    cfg = dict(size=3) if name is None else dict(type=name)
    with pytest.raises(ValueError, match=f'transform {name!r} not found in torchvision'):
        ImageFolder(str(image_folder() / 'train'), [cfg])


def test_a_missing_folder_is_named(tmp_path):
    for read in (check_image_folder, lambda root: ImageFolder(root, [])):
        with pytest.raises(FileNotFoundError, match=r'image folder .*gone not found'):
            read(str(tmp_path / 'gone'))
    (tmp_path / 'file').touch()
    with pytest.raises(FileNotFoundError, match=r'image folder .*file not found'):
        check_image_folder(str(tmp_path / 'file'))


def test_a_folder_without_class_folders_is_refused(tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'x.png')
    with pytest.raises(ValueError, match='has no folders, expected one for each class'):
        ImageFolder(str(tmp_path), [])


def test_a_class_without_images_is_named(image_folder):
    root = image_folder() / 'train'
    (root / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='empty'):
        ImageFolder(str(root), [])


def test_another_number_of_classes_than_the_model_s_is_refused(image_folder):
    root = str(image_folder(classes=3) / 'train')
    assert check_image_folder(root, 3) == ['class0', 'class1', 'class2']
    with pytest.raises(ValueError, match='has 3 class folders, expected the num_classes=10 of'):
        check_image_folder(root, 10)


def test_is_found_by_its_name(image_folder):
    cfg = dict(type='ImageFolder', data_root=str(image_folder() / 'val'), pipeline=[])
    dataset = DATASETS.build(cfg)
    assert isinstance(dataset, ImageFolder)
    assert isinstance(dataset.transform.transforms[-1], v2.PILToTensor)
