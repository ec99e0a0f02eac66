import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image_folder(tmp_path):
    """``image_folder(classes=3, train=4, val=2)``: a new folder with images of 32x32 pixels.

    train, val: the number of images of each class.
    """

    def write(classes: int = 3, train: int = 4, val: int = 2):
        rng = np.random.default_rng(0)
        root = tmp_path / f'images{classes}-{train}-{val}'
        for split, number in (('train', train), ('val', val)):
            for label in range(classes):
                folder = root / split / f'class{label}'
                folder.mkdir(parents=True)
                for index in range(number):
                    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f'{index}.png')
        return root

    return write
