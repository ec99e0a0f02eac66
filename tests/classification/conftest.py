from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/cifar10'


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


@pytest.fixture
def tiny_cfg(image_folder):
    """``tiny_cfg(method)``: CIFAR-10's config, small: 2 epochs of 2 iterations, 2 classes.

    Images are cropped and flipped, each epoch ends with a validation and a checkpoint. SGC prunes
    before both epochs.
    """
    root = image_folder(classes=2, train=4, val=1)

    def read(method: str) -> Config:
        cfg = Config.fromfile(CONFIGS / f'{method}-r18-b16_10e_cifar10.py')
        cfg.model.num_classes = 2
        cfg.model.backbone.base_channels = 4
        cfg.train_dataloader.batch_size = 4
        cfg.train_dataloader.dataset.data_root = str(root / 'train')
        cfg.val_dataloader.dataset.data_root = str(root / 'val')
        cfg.val_evaluator.topk = (1,)
        cfg.train_cfg.max_epochs = 2
        cfg.param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=2)]
        if method == 'sgc':
            cfg.custom_hooks[0].steps = {0: 20, 1: 40}
        return cfg

    return read
