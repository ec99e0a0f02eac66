"""Top-k accuracy."""

from collections.abc import Sequence

import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ..layers.checks import check_integer


@METRICS.register_module()
class Accuracy(BaseMetric):
    """``accuracy/top1``, ``accuracy/top5``: percent of the images with the label among the first k.

    topk: the k, not more than there are classes.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: Sequence[int] = (1, 5), **kwargs) -> None:
        super().__init__(**kwargs)
        if not isinstance(topk, list | tuple) or not topk:
            raise ValueError(f'topk={topk!r} of Accuracy, expected a tuple of integers')
        for k in topk:
            check_integer('topk', k, 'Accuracy')
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[Tensor]) -> None:
        """data_batch: with the labels ``data_samples``, ``[B]``. data_samples: of each image its
        scores, ``[classes]``.

        Raises ValueError where there are fewer classes than `topk` asks for.
        """
        scores = torch.stack(list(data_samples)).cpu()
        if max(self.topk) > scores.size(1):
            raise ValueError(
                f'Accuracy topk={self.topk} of {scores.size(1)} classes, expected no more of them'
            )
        best = scores.topk(max(self.topk), dim=1).indices
        hit = best == data_batch['data_samples'].cpu()[:, None]
        self.results += [tuple(bool(row[:k].any()) for k in self.topk) for row in hit]

    def compute_metrics(self, results: list[tuple[bool, ...]]) -> dict[str, float]:
        """The shares over all images, in percent."""
        return {
            f'top{k}': 100 * sum(column) / len(results)
            for k, column in zip(self.topk, zip(*results, strict=True), strict=True)
        }
