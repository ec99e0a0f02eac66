"""A network run again and again, in which one layer differs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

_MOST = 4 * 2**30


class ReusedOutputs:
    """What convolutions and linear layers gave in a first pass, where they get the same again.

    All before the layer that differs, and all branches beside it, need no computing anew. Passes
    have to call layers in the same order, without gradients.

    most: bytes of outputs that are kept; layers after them are always computed.
    """

    def __init__(self, network: nn.Module, most: int = _MOST) -> None:
        self._layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        self._known: dict[tuple[nn.Module, int], tuple[tuple, Tensor]] = {}
        self._left = most
        self._differs: nn.Module | None = None
        self._calls: Counter[nn.Module] = Counter()

    @contextmanager
    def one_pass(self, differs: nn.Module | None) -> Iterator[None]:
        """Over the same images in the same order; None for the first pass, which is kept."""
        self._differs = differs
        self._calls.clear()
        for layer in self._layers:
            layer.forward = partial(self._forward, layer, layer.forward)
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward

    def _forward(self, layer: nn.Module, compute, x: Tensor, *gate: object) -> Tensor:
        key = layer, self._calls[layer]
        self._calls[layer] += 1
        if layer is self._differs or gate:
            return compute(x, *gate)
        mark = _mark(x)
        if self._differs is not None:
            before, y = self._known.get(key, (None, None))
            return y.clone() if before == mark else compute(x)
        y = compute(x)
        if y.nbytes <= self._left:
            self._left -= y.nbytes
            self._known[key] = mark, y.clone()  # what comes after may work in place
        return y


def _mark(x: Tensor) -> tuple:
    """The same for equal tensors and, but for a chance of about 1e-14, no others."""
    return tuple(x.shape), x.sum().item(), torch.linalg.vector_norm(x).item()
