"""Weights that make up for what grouping changed in the layers before them."""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .inputs import watch_inputs
from .least_squares import SAMPLES, WIDE, filters_and_reads, read_by, ridge, solve
from .reuse import MOST, ReusedOutputs

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

    For each filter the least ``E[(v . x' + b - w . x)^2] + r |v - u|^2``: x is what the dense layer
    reads and w its weight; x' what the layer reads when all before it are fitted, u the weight it
    has so far. v is zero where the layer isn't connected (He et al., ICCV 2017, whole model
    pruning). b is added to the layer's bias, or taken from the running mean of batch norms that
    read it; it is 0 where there is neither. Layers of more than 8192 weights a filter stay as they
    are.

    dense, network: with the same layers, weights of the same shapes and the same rows of inputs.
    masks: ``[K, C]`` bool, the connections of each layer to fit. dense_runs, runs(): a call for
    each batch of images, of each network, the same ones in the same order.
    """
    layers = {name: dense.get_submodule(name) for name in masks}
    layers = {name: m for name, m in layers.items() if m.weight[0].numel() <= WIDE}
    if not layers:
        return
    images = [_wanted(layers, run, np.random.default_rng(seed)) for run in dense_runs]
    offsets = _offsets(network, layers, next(iter(runs())))
    order = dict.fromkeys(name for image in images for name in image)
    known = [ReusedOutputs(network, MOST // len(images)) for _ in images]
    for name in track(order, 'making up for layers before'):
        module, moments = network.get_submodule(name), _Moments()
        for run, image, before in zip(runs(), images, known, strict=True):
            if name in image:
                with suppress(_Enough), before.one_pass(None):
                    moments.watch(name, module, run, image[name])
            before.forget(module)
        mask = masks[name].to(module.weight.device)
        weight = module.weight.flatten(1).float()
        fitted, offset = moments.fit(weight, mask, centred=bool(offsets[name]))
        module.weight.copy_(fitted.reshape(module.weight.shape))
        for parameter, sign in offsets[name]:
            parameter.add_(sign * offset)


def _wanted(
    layers: dict[str, nn.Module], run: Run, draw: np.random.Generator
) -> dict[str, list[_Wanted]]:
    """What an image makes of each layer that it reaches, call by call, in their order."""
    found: dict[str, list[_Wanted]] = {}

    def note(name: str, x: Tensor) -> None:
        x, positions = read_by(layers[name], x.float()), None
        if len(x) > SAMPLES:
            chosen = draw.choice(len(x), SAMPLES, replace=False)
            positions = torch.from_numpy(chosen).to(x.device)
            x = x[positions]
        outputs = x @ layers[name].weight.flatten(1).float().T
        found.setdefault(name, []).append(_Wanted(outputs, positions))

    watch_inputs(layers, [run], note)
    return found


def _offsets(
    network: nn.Module, layers: Iterable[str], run: Run
) -> dict[str, list[tuple[Tensor, int]]]:
    """What holds the offset of each layer's outputs, and its sign there."""
    modules = {name: network.get_submodule(name) for name in layers}
    biases = {n: [(m.bias, 1)] for n, m in modules.items() if m.bias is not None}
    behind = _norms_behind(network, {n: m for n, m in modules.items() if n not in biases}, run)
    return biases | {n: [(norm.running_mean, -1) for norm in found] for n, found in behind.items()}


def _norms_behind(
    network: nn.Module, modules: dict[str, nn.Module], run: Run
) -> dict[str, set[nn.Module]]:
    """The batch norms that read each module's outputs as they are."""
    found: dict[str, set[nn.Module]] = {name: set() for name in modules}
    if not modules:
        return found
    given: dict[int, tuple[str, Tensor]] = {}  # with the tensor: no other has its id meanwhile

    def gives(name: str) -> Callable:
        return lambda module, args, output: given.update({id(output): (name, output)})

    def reads(norm: nn.Module, args: tuple) -> None:
        if id(args[0]) in given:
            found[given[id(args[0])][0]].add(norm)

    handles = [m.register_forward_hook(gives(name)) for name, m in modules.items()]
    for norm in network.modules():
        if isinstance(norm, _BatchNorm) and norm.running_mean is not None:
            handles.append(norm.register_forward_pre_hook(reads))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found


class _Moments:
    """Of what a layer reads, with itself and with what it is to give."""

    def __init__(self) -> None:
        self.gram: Tensor  # [R, R]
        self.cross: Tensor  # [K, R]
        self.inputs: Tensor  # [R]
        self.outputs: Tensor  # [K]
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
                self.inputs = x.new_zeros(x.size(1))
                self.outputs = x.new_zeros(outputs.size(1))
            self.gram.addmm_(x.T, x)
            self.cross.addmm_(outputs.T, x)
            self.inputs += x.sum(dim=0)
            self.outputs += outputs.sum(dim=0)
            self.seen += len(x)
            if not left:
                raise _Enough

        watch_inputs({name: module}, [run], note)

    def fit(self, weight: Tensor, mask: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
        """Weights and offsets, the latter 0 unless `centred`.

        weight: ``[K, R]``, so far; mask: ``[K, C]``.
        """
        fitted = torch.zeros_like(weight)
        gram, cross = self.gram / self.seen, self.cross / self.seen
        inputs, outputs = self.inputs / self.seen, self.outputs / self.seen
        added = ridge(gram.diagonal().mean())
        if centred:
            gram.addr_(inputs, inputs, alpha=-1)
            cross.addr_(outputs, inputs, alpha=-1)
        gram.diagonal().add_(added)
        wanted = cross + added * weight
        for filters, read in filters_and_reads(mask, weight.size(1) // mask.size(1)):
            some = filters[:, None], read
            fitted[some] = solve(gram[read][:, read], wanted[some].T).T
        offset = outputs - fitted @ inputs if centred else torch.zeros_like(outputs)
        return fitted, offset
