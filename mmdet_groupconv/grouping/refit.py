"""Weights of a grouped layer that come closest to what the dense one gave."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from .clusters import Clusters
from .inputs import watch_inputs
from .least_squares import SAMPLES, WIDE, filters_and_reads, read_by, ridge, solve
from .regular import Groups

_SAMPLES_OF_WIDE = 128  # of an image, kept as they are


class Refit:
    """Least squares: what is kept of a filter makes up for what is cut, as far as inputs correlate.

    For each filter ``min_v E[(v . x - w . x)^2] + r |v - w|^2`` over images, ``v`` zero outside its
    group: the reconstruction of channel pruning (He et al., ICCV 2017, equation 1) and of optimal
    brain surgeons, in closed form from the inputs in the dense network: their second moments, or
    a few of themselves for layers of more than 8192 weights a filter.

    network: dense. layers: names of its convolutions and linear layers. forwards: each runs it on a
    batch of images.

    Raises ValueError where no batch comes.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Iterable[str],
        forwards: Iterable[Callable[[], object]],
        seed: int = 0,
    ) -> None:
        modules = {name: network.get_submodule(name) for name in layers}
        self._weights = {name: m.weight.detach().clone() for name, m in modules.items()}
        self._inputs = {
            name: (_Samples if module.weight[0].numel() > WIDE else _Moments)()
            for name, module in modules.items()
        }
        draw = np.random.default_rng(seed)

        def note(name: str, x: Tensor) -> None:
            x, inputs = read_by(modules[name], x.float()), self._inputs[name]
            if len(x) > inputs.most:
                chosen = draw.choice(len(x), inputs.most, replace=False)
                x = x[torch.from_numpy(chosen).to(x.device)]
            inputs.add(x)

        if modules and not watch_inputs(modules, forwards, note):
            raise ValueError('no image to fit weights on, expected one or more')

    def __call__(self, name: str, groups: Groups | Clusters | None) -> Tensor:
        """The weight of a layer in `groups`, of the dense shape, zero across them.

        None, the dense layer, has its own.
        """
        dense = self._weights[name]
        if groups is None:
            return dense
        mask = torch.from_numpy(groups.mask).to(dense.device)
        kernel = dense[0, 0].numel()
        weight = dense.flatten(1).float()  # exact to about 1e-3, in half of the time of float64
        fitted = torch.zeros_like(weight)
        for filters, read in filters_and_reads(mask, kernel):
            fitted[filters[:, None], read] = self._inputs[name].fit(weight[filters], read)
        return fitted.to(dense.dtype).reshape(dense.shape)


class _Moments:
    """The mean of ``x x^T`` over inputs, float32: the normal equations."""

    most = SAMPLES

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.seen = 0

    def add(self, x: Tensor) -> None:
        """x: ``[n, C]``."""
        if self.total is None:
            self.total = x.new_zeros(x.size(1), x.size(1))
        self.total.addmm_(x.T, x)
        self.seen += len(x)

    def fit(self, weight: Tensor, read: Tensor) -> Tensor:
        """Filters ``[K, C]`` and the indices ``[R]`` of what they may read -> ``[K, R]``."""
        if not self.seen:  # a part that these images didn't reach
            return weight[:, read]
        wanted = weight @ self.total[:, read] / self.seen  # E[(w . x) x]
        gram = self.total[read][:, read] / self.seen
        added = ridge(self.total.diagonal().mean() / self.seen)
        gram.diagonal().add_(added)
        return solve(gram, (wanted + added * weight[:, read]).T).T


class _Samples:
    """Inputs themselves: the dual form, whose matrices have a row for each of them."""

    most = _SAMPLES_OF_WIDE

    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        """x: ``[n, C]``."""
        self.rows.append(x)

    def fit(self, weight: Tensor, read: Tensor) -> Tensor:
        """As of :class:`_Moments`."""
        kept = weight[:, read]
        if not sum(map(len, self.rows)):
            return kept
        x = torch.cat(self.rows)
        added = ridge(x.square().mean()) * len(x)
        x_read = x[:, read]
        lacking = x @ weight.T - x_read @ kept.T  # [n, K]
        gram = x_read @ x_read.T
        gram.diagonal().add_(added)
        return kept + (x_read.T @ solve(gram, lacking)).T
