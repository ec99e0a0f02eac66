"""What grouping one layer costs a trained network, measured on images before any fine-tuning."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from .clusters import Clusters
from .regular import Groups
from .reuse import ReusedOutputs
from .starts import start_groups


class MeasuredLoss:
    """The rise of a network's loss where one layer alone is grouped, by layer and kind of groups.

    A backbone bears groups that a detector's head doesn't: sums of what each layer cuts of its own
    importance would not tell.

    network: grouped layers in the place of the dense ones, which it is left as. weights: of a layer
    in groups, as :func:`start_groups` takes them. evaluate: the loss on some images, always the
    same.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Iterable[str],
        weights: Callable[[str, Groups | Clusters | None], Tensor],
        evaluate: Callable[[], float],
    ) -> None:
        self.network = network
        self.weights = weights
        self.evaluate = evaluate
        self._reused = ReusedOutputs(network)
        start_groups(network, dict.fromkeys(layers), weights)
        with self._reused.one_pass(None):
            self.dense = evaluate()

    def __call__(self, name: str, groups: Groups | Clusters) -> float:
        """The rise, 0 or more."""
        start_groups(self.network, {name: groups}, self.weights)
        with self._reused.one_pass(self.network.get_submodule(name)):
            rise = self.evaluate() - self.dense
        start_groups(self.network, {name: None}, self.weights)
        return max(rise, 0.0)


def mean_loss(losses: Callable[[], Iterator[Tensor]]) -> Callable[[], float]:
    """losses: what makes the scalars of all images anew."""

    @torch.no_grad()
    def evaluate() -> float:
        values = [float(loss) for loss in losses()]
        return sum(values) / len(values)

    return evaluate


def output_change(forwards: Iterable[Callable[[], object]]) -> Callable[[], float]:
    """How far a network's outputs are from those of the first call, squared, relative to their
    size: for images without labels.

    forwards: each runs the network on an image; tensors may be nested in what it returns.
    """
    forwards = list(forwards)
    first: list[list[Tensor]] = []

    @torch.no_grad()
    def evaluate() -> float:
        outputs = [list(_tensors(run())) for run in forwards]
        if not first:
            first.extend(outputs)
        changes = [
            float((x - y).square().mean() / y.square().mean().clamp(min=1e-12))
            for new, old in zip(outputs, first, strict=True)
            for x, y in zip(new, old, strict=True)
        ]
        return sum(changes) / len(changes)

    return evaluate


def output_slopes(forwards: Iterable[Callable[[], object]], seed: int = 0) -> Iterator[Tensor]:
    """A scalar of each image for :func:`taylor_importance`, which then says how far cutting a
    connection moves the outputs, as :func:`output_change` measures it, to second order.

    Each output along a direction of random signs, relative to its size: the mean of its squared
    slope is that of all its numbers (Hutchinson's estimator). forwards: as there, with a graph.
    """
    for number, run in enumerate(forwards):
        outputs = list(_tensors(run()))
        signs = torch.Generator().manual_seed(seed + number)
        yield sum(_along_signs(y, signs) for y in outputs) / len(outputs) ** 0.5


def _along_signs(y: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, y.shape, generator=generator).to(y) * 2 - 1
    return (y * signs).sum() / y.detach().norm().clamp(min=1e-6)


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, list | tuple):
        for item in output:
            yield from _tensors(item)
