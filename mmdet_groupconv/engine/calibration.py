"""A detector on training images before it is trained any further: its losses, its features."""

import copy
import itertools
from collections.abc import Callable, Iterator

from mmengine.config import Config
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn


def training_images(cfg: Config, number: int, seed: int = 0) -> Iterator[dict]:
    """Up to `number` batches of one image each, drawn and augmented as for training, seeded."""
    set_random_seed(seed)
    loader = copy.deepcopy(cfg.train_dataloader)
    loader.update(batch_size=1, num_workers=0, persistent_workers=False)
    yield from itertools.islice(Runner.build_dataloader(loader, seed=seed), number)


def training_losses(model: nn.Module, batches: Iterator[dict]) -> Iterator[Tensor]:
    """The sum of a model's losses on each batch, with a graph; norms stay as they are."""
    model.eval()  # now: MMDetection's backbones freeze their stages with it

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
