"""Real images, one a batch."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmcv.transforms import Compose
from mmdet.registry import DATASETS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Subset

from ..classification.image_files import read_image
from ..classification.image_folder import transforms

SUFFIXES = '.jpg', '.jpeg', '.png', '.bmp', '.webp'


def image_paths(folder: str) -> list[Path]:
    """The images in and below a folder, in order.

    Raises FileNotFoundError where the folder holds no image.
    """
    paths = sorted(p for p in Path(folder).rglob('*') if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f'{folder} holds no image, expected files in {", ".join(SUFFIXES)}')
    return paths


def image_batches(cfg: Config, paths: list[Path]) -> Iterator[dict]:
    """A batch an image, loaded as the config's test pipeline does it, without annotations."""
    tested = cfg.test_dataloader.dataset
    if tested.get('type') == 'ImageFolder':  # a classifier's; its pipeline is torchvision's
        transform = transforms(tested.pipeline)
        for path in paths:
            yield dict(inputs=read_image(path, transform)[None])
        return
    steps = [step for step in get_test_pipeline_cfg(cfg) if 'LoadAnnotations' not in step['type']]
    pipeline = Compose(steps)
    for path in paths:
        packed = pipeline(dict(img_path=str(path), img_id=0))
        yield dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])


def spread(items: Sequence, number: int) -> list:
    """So many of them, at equal distances: data may be sorted by class."""
    number = min(number, len(items))
    return [items[n * len(items) // number] for n in range(number)]


def spread_loader(cfg: dict, number: int) -> DataLoader:
    """Batches of one image each, of so many that are spread over a data loader's data set.

    cfg: the data loader's, which stays as it is.
    """
    cfg = copy.deepcopy(cfg)
    cfg.update(batch_size=1, num_workers=0, persistent_workers=False)
    dataset = DATASETS.build(cfg['dataset'])
    cfg['dataset'] = Subset(dataset, spread(range(len(dataset)), number))
    return Runner.build_dataloader(cfg, seed=0)
