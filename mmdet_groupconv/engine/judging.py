"""What the connections of a detector, and their groups, are judged by: its images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from mmengine.config import Config
from rich.progress import track
from torch import nn

from ..datasets.images import image_batches, image_paths
from ..grouping import (
    MeasuredLoss,
    Refit,
    magnitude_importance,
    mean_loss,
    output_change,
    output_slopes,
    taylor_importance,
)
from ..grouping.importance import Importance
from .calibration import forward_passes, training_images, training_losses


@dataclass
class Judge:
    """Judges by the training images of `cfg` and their labels, or by what changes of the outputs.

    importance: 'taylor', or 'magnitude'. folder: of images without labels in the place of them.
    """

    cfg: Config
    importance: str
    folder: str | None
    seed: int

    @property
    def labelled(self) -> bool:
        """Whether labels judge: else the change of outputs does."""
        return self.importance == 'taylor' and self.folder is None

    def images(self, number: int) -> Iterator[dict]:
        """Up to `number` batches of one image each."""
        if self.folder is None:
            return training_images(self.cfg, number, self.seed)
        return image_batches(self.cfg, image_paths(self.folder)[:number])

    def input_size(self, dense: nn.Module, number: int) -> tuple[int, int]:
        """The median (height, width) of so many images, as the network gets them."""
        prepared = (dense.data_preprocessor(batch, False) for batch in self.images(number))
        sizes = np.median([data['inputs'].shape[-2:] for data in prepared], axis=0)
        return tuple(int(side) for side in sizes)

    def connections(self, dense: nn.Module, names: list[str], number: int) -> Importance:
        """How much each connection of these layers matters, judged on so many images."""
        batches = track(self.images(number), 'judging connections', total=number)
        if self.importance == 'magnitude':
            return magnitude_importance(dense, names, forward_passes(dense, batches))
        if self.labelled:
            losses = training_losses(dense, batches)
        else:
            losses = output_slopes(forward_passes(dense, batches), self.seed)
        return taylor_importance(dense, names, losses)

    def groups(
        self, network: nn.Module, refit: Refit, layers: Iterable[str], images: list[dict]
    ) -> MeasuredLoss:
        """What groups of these layers cost, measured on `images`."""
        if self.labelled:
            evaluate = mean_loss(lambda: training_losses(network, images))
        else:
            evaluate = output_change(forward_passes(network, images))
        return MeasuredLoss(network, layers, refit, evaluate)
