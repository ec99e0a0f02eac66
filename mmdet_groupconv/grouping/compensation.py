"""Weights that make up for what grouping changed in the layers before them."""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from .inputs import watch_inputs
from .least_squares import filters_and_reads, read_by, ridge, solve

_SAMPLES = 1024  # positions of a map
_WIDE = 8192  # weights of a filter: the second moments of more take too much memory

Run = Callable[[], object]


class _Wanted(NamedTuple):
    """Outputs ``[n, K]`` of a dense layer, its bias aside, and at which positions: None for all."""

    outputs: Tensor
    positions: Tensor | None


class _Enough(Exception):  # noqa: N818
    """A layer was seen as often as it had to be; what runs behind it doesn't matter."""


@torch.no_grad()
def compensate(
    dense: nn.Module,
    network: nn.Module,
    masks: dict[str, Tensor],
    dense_runs: Iterable[Run],
    runs: Callable[[], Iterable[Run]],
    seed: int = 0,
) -> None:
    """Fit layers, one after the other as they run, to what the dense network gives there.

    For each filter ``min_v E[(v . x' - w . x)^2] + r |v - u|^2``: x is what the dense layer reads
    and w its weight; x' what the layer reads when all before it are fitted, u the weight it has
    so far. v is zero where the layer isn't connected (He et al., ICCV 2017, whole model pruning).
    Layers of more than 8192 weights a filter stay as they are.

    dense, network: with the same layers, weights of the same shapes and the same rows of inputs.
    masks: ``[K, C]`` bool, the connections of each layer to fit. dense_runs, runs(): a call for
    each batch of images, of each network, the same ones in the same order.
    """
    layers = {name: dense.get_submodule(name) for name in masks}
    layers = {name: m for name, m in layers.items() if m.weight[0].numel() <= _WIDE}
    images = [_wanted(layers, run, np.random.default_rng(seed)) for run in dense_runs]
    order = dict.fromkeys(name for image in images for name in image)
    for name in track(order, 'making up for layers before'):
        module, moments = network.get_submodule(name), _Moments()
        for run, image in zip(runs(), images, strict=True):
            if name in image:
                with suppress(_Enough):
                    moments.watch(name, module, run, image[name])
        mask = masks[name].to(module.weight.device)
        fitted = moments.fit(module.weight.flatten(1).float(), mask)
        module.weight.copy_(fitted.reshape(module.weight.shape))


def _wanted(
    layers: dict[str, nn.Module], run: Run, draw: np.random.Generator
) -> dict[str, list[_Wanted]]:
    """What an image makes of each layer that it reaches, call by call, in their order."""
    found: dict[str, list[_Wanted]] = {}

    def note(name: str, x: Tensor) -> None:
        x, positions = read_by(layers[name], x.float()), None
        if len(x) > _SAMPLES:
            chosen = draw.choice(len(x), _SAMPLES, replace=False)
            positions = torch.from_numpy(chosen).to(x.device)
            x = x[positions]
        outputs = x @ layers[name].weight.flatten(1).float().T
        found.setdefault(name, []).append(_Wanted(outputs, positions))

    watch_inputs(layers, [run], note)
    return found


class _Moments:
    """Of what a layer reads, with itself and with what it is to give."""

    def __init__(self) -> None:
        self.gram: Tensor  # [R, R]
        self.cross: Tensor  # [K, R]
        self.seen = 0

    def watch(self, name: str, module: nn.Module, run: Run, wanted: list[_Wanted]) -> None:
        """Add an image. Raises _Enough when the layer has had all of its inputs."""
        left = deque(wanted)

        def note(_: str, x: Tensor) -> None:
            outputs, positions = left.popleft()
            x = read_by(module, x.float())
            x = x if positions is None else x[positions]
            if not self.seen:
                self.gram = x.new_zeros(x.size(1), x.size(1))
                self.cross = x.new_zeros(outputs.size(1), x.size(1))
            self.gram.addmm_(x.T, x)
            self.cross.addmm_(outputs.T, x)
            self.seen += len(x)
            if not left:
                raise _Enough

        watch_inputs({name: module}, [run], note)

    def fit(self, weight: Tensor, mask: Tensor) -> Tensor:
        """weight: ``[K, R]``, so far; mask: ``[K, C]``."""
        fitted = torch.zeros_like(weight)
        gram, cross = self.gram / self.seen, self.cross / self.seen
        added = ridge(gram.diagonal().mean())
        gram.diagonal().add_(added)
        wanted = cross + added * weight
        for filters, read in filters_and_reads(mask, weight.size(1) // mask.size(1)):
            some = filters[:, None], read
            fitted[some] = solve(gram[read][:, read], wanted[some].T).T
        return fitted
