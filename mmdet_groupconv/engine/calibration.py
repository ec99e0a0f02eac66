"""A network on training images, to judge it by: its losses, its features, its gates."""

import copy
import itertools
from collections.abc import Callable, Iterator

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from .data_inputs import datasets_of


def training_images(cfg: Config, number: int, seed: int = 0) -> Iterator[dict]:
    """Up to `number` batches of one image each, drawn and augmented as for training, seeded."""
    set_random_seed(seed)
    loader = copy.deepcopy(cfg.train_dataloader)
    loader.update(batch_size=1, num_workers=0, persistent_workers=False)
    yield from itertools.islice(Runner.build_dataloader(loader, seed=seed), number)


def calibration_batches(cfg: Config, number: int) -> Iterator[dict]:
    """Up to `number` batches of training images, loaded as for a test.

    The same ones in every process, drawn over the whole data set: it may well be sorted by class.
    """
    dataset = next(
        dataset
        for dataset in datasets_of(cfg.train_dataloader.dataset)
        if 'dataset' not in dataset and 'datasets' not in dataset
    )
    own, test = copy.deepcopy(dataset), cfg.test_dataloader.dataset
    if 'pipeline' in test:
        own.pipeline = copy.deepcopy(test.pipeline)
    if 'test_mode' in test:
        own.test_mode = True
    images = DATASETS.build(own)
    batch = cfg.test_dataloader.get('batch_size', 1)
    collate = cfg.test_dataloader.get('collate_fn', dict(type='pseudo_collate'))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    chosen = Subset(images, order[: number * batch].tolist())
    yield from DataLoader(chosen, batch, collate_fn=FUNCTIONS.get(collate['type']))


def calibration_pixels(cfg: Config, number: int) -> list[Tensor]:
    """The images of :func:`calibration_batches`, `number` of them: ``[1, 3, H, W]``, uint8, RGB."""
    batches = calibration_batches(cfg, number)
    images = (image[None].flip(1).contiguous() for batch in batches for image in batch['inputs'])
    return list(itertools.islice(images, number))


def training_losses(model: nn.Module, batches: Iterator[dict]) -> Iterator[Tensor]:
    """The sum of a model's losses on each batch, with a graph; norms stay as they are."""
    model.eval()  # now: MMDetection's backbones freeze their stages with it
    heads = [part for name, part in model.named_children() if name.endswith('head')]
    for module in (model, *heads):  # themselves alone: FCOS, say, has boxes in strides in training
        module.training = True

    def loss(batch: dict) -> Tensor:
        data = model.data_preprocessor(batch, training=True)
        return model.parse_losses(model(**data, mode='loss'))[0]

    return map(loss, batches)


def forward_passes(model: nn.Module, batches: Iterator[dict]) -> Iterator[Callable[[], object]]:
    """A call for each batch that runs a model up to its heads' raw outputs."""
    model.eval()
    for batch in batches:
        data = model.data_preprocessor(batch, training=False)
        yield lambda data=data: model(**data, mode='tensor')
