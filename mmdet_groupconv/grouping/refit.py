"""Weights of a grouped layer that come closest to what the dense one gave."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clusters import Clusters
from .inputs import watch_inputs
from .regular import Groups

_SAMPLES = 1024  # positions of a map; more say little, since neighbours are alike
_RIDGE = 0.01  # of the inputs' mean power
_MOST_INPUTS = 8192  # of a filter: the second moments of more take too much memory


class Refit:
    """Least squares: what is kept of a filter makes up for what is cut, as far as inputs correlate.

    For each filter ``min_v E[(v . x - w . x)^2] + r |v - w|^2`` over images, ``v`` zero outside its
    group: the reconstruction of channel pruning (He et al., ICCV 2017, equation 1) and of optimal
    brain surgeons, in closed form from the inputs' second moments in the dense network.

    network: dense. layers: names of its convolutions and linear layers. forwards: each runs it on a
    batch of images. Layers whose filters have above 8192 weights keep theirs, what crosses groups
    as well.

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
        judged = {
            name: module
            for name, module in modules.items()
            if module.weight[0].numel() <= _MOST_INPUTS
        }
        self._moments = _second_moments(judged, forwards, seed)

    def __call__(self, name: str, groups: Groups | Clusters | None) -> Tensor:
        """The weight of a layer in `groups`, of the dense shape, zero across them.

        None, the dense layer, has its own.
        """
        dense, moments = self._weights[name], self._moments.get(name)
        if groups is None or moments is None:
            return dense
        mask = torch.from_numpy(groups.mask).to(dense.device)
        kernel = dense[0, 0].numel()
        weight = dense.flatten(1).double()
        fitted = torch.zeros_like(weight)
        rows, group_of = mask.unique(dim=0, return_inverse=True)
        for number, row in enumerate(rows):
            read = row.repeat_interleave(kernel).nonzero()[:, 0]
            filters = (group_of == number).nonzero()[:, 0]
            fitted[filters[:, None], read] = _fit(weight[filters], moments, read)
        return fitted.to(dense.dtype).reshape(dense.shape)


def _fit(weight: Tensor, moments: Tensor, read: Tensor) -> Tensor:
    """``[K, C]``, ``[C, C]`` and the indices ``[R]`` of what may be read -> ``[K, R]``."""
    kept = weight[:, read]
    wanted = weight @ moments[:, read].double()  # E[(w . x) x]
    gram = moments[read][:, read].double()
    ridge = _RIDGE * moments.diagonal().mean().double().clamp(min=1e-12)
    gram.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(gram)
    return torch.cholesky_solve((wanted + ridge * kept).T, factor).T


def _second_moments(
    modules: dict[str, nn.Module], forwards: Iterable[Callable[[], object]], seed: int
) -> dict[str, Tensor]:
    """Means of ``x x^T`` over images and positions, ``x`` what one output reads: float32."""
    if not modules:
        return {}
    draw = np.random.default_rng(seed)
    sums: dict[str, Tensor] = {}
    seen = dict.fromkeys(modules, 0)

    def note(name: str, x: Tensor) -> None:
        x = _inputs(modules[name], x.float())
        if len(x) > _SAMPLES:
            x = x[torch.from_numpy(draw.choice(len(x), _SAMPLES, replace=False)).to(x.device)]
        if name not in sums:
            sums[name] = x.new_zeros(x.size(1), x.size(1))
        sums[name].addmm_(x.T, x)
        seen[name] += len(x)

    if not watch_inputs(modules, forwards, note):
        raise ValueError('no image to fit weights on, expected one or more')
    return {name: total / seen[name] for name, total in sums.items()}


def _inputs(module: nn.Module, x: Tensor) -> Tensor:
    """What each output position reads: ``[positions, weights of a filter]``."""
    if isinstance(module, nn.Linear):
        return x
    if module.kernel_size == (1, 1) and module.padding == (0, 0):
        rows, columns = module.stride
        x = x[:, :, ::rows, ::columns].flatten(2)
    else:
        x = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
    return x.transpose(1, 2).flatten(0, 1)
