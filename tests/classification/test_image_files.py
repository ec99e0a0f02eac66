"""Images without labels."""

import pytest
import torch
from PIL import Image

from mmdet_groupconv.classification import ImageFiles


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'below').mkdir()
    Image.new('RGB', (40, 30), (255, 0, 0)).save(tmp_path / 'b.png')
    Image.new('L', (40, 30), 7).save(tmp_path / 'below/a.jpg')
    (tmp_path / 'notes.txt').write_text('')
    return tmp_path


def test_finds_images_at_any_depth_and_gives_them_in_rgb(folder):
    images = ImageFiles(folder, [dict(type='CenterCrop', size=20)])
    assert [path.name for path in images.paths] == ['b.png', 'a.jpg']
    first = images[0]['inputs']
    assert first.shape == (3, 20, 20)
    assert first.dtype == torch.uint8
    assert first[:, 0, 0].tolist() == [255, 0, 0]
    assert images[1]['inputs'].shape == (3, 20, 20)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'holds no image, expected \.jpg'):
        ImageFiles(tmp_path, [])
    with pytest.raises(FileNotFoundError, match='no_such not found'):
        ImageFiles(tmp_path / 'no_such', [])
