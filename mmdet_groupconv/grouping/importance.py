"""How much each connection of a trained layer matters: ``[K, C]``, one number for each kernel."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from .inputs import watch_inputs

Importance = dict[str, np.ndarray]


def taylor_importance(
    network: nn.Module, layers: Iterable[str], losses: Iterable[Tensor]
) -> Importance:
    """The rise of the loss where a connection is cut, to second order (Fisher information).

    ``E[(sum_kernel dL/dw * w)^2]`` over images: the diagonal of the Hessian of a trained network,
    as channels are judged in GroupFisher (Liu et al., ICML 2021, equation 4), here for connections.

    layers: names of convolutions or linear layers of `network`. losses: scalars with a graph, one
    an image, made while frozen layers are open. Returns float64 ``[K, C]`` by layer; nothing in the
    network changes.

    Raises ValueError where no loss comes.
    """
    weights = {name: network.get_submodule(name).weight for name in layers}
    found = {name: torch.zeros(w.shape[:2], dtype=torch.float64) for name, w in weights.items()}
    frozen = [weight for weight in weights.values() if not weight.requires_grad]
    images = 0
    try:
        for weight in frozen:  # their loss has to reach them
            weight.requires_grad_(True)
        for loss in losses:
            slopes = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for (name, weight), slope in zip(weights.items(), slopes, strict=True):
                if slope is not None:
                    found[name] += _kernels(slope * weight.detach()).double().cpu() ** 2
            images += 1
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
    if not images:
        raise ValueError('no image to judge connections by, expected one or more')
    return {name: (total / images).numpy() for name, total in found.items()}


def magnitude_importance(
    network: nn.Module, layers: Iterable[str], batches: Iterable[Callable[[], object]]
) -> Importance:
    """``sum_kernel |w|`` times the root mean square of the channel that it reads, a share of each
    layer's sum.

    layers: as in :func:`taylor_importance`. batches: each runs `network` on a batch of images.

    Raises ValueError where no batch comes.
    """
    modules = {name: network.get_submodule(name) for name in layers}
    squares = dict.fromkeys(modules, 0.0)

    def note(name: str, x: Tensor) -> None:
        x = x.double()
        dims = [d for d in range(x.dim()) if d != 1]
        squares[name] = squares[name] + (x**2).sum(dim=dims)

    if not watch_inputs(modules, batches, note):
        raise ValueError('no image to judge connections by, expected one or more')
    found = {}
    for name, module in modules.items():
        sizes = _kernels(module.weight.detach().double().abs())
        scaled = (sizes * torch.as_tensor(squares[name]).sqrt()).cpu().numpy()
        found[name] = scaled / max(scaled.sum(), 1e-30)
    return found


def by_head(importance: np.ndarray, assign: np.ndarray) -> np.ndarray:
    """Sums over the filters of each head: ``[K, C]`` and ``[K]`` -> ``[heads, C]``."""
    return np.eye(assign.max() + 1)[assign].T @ importance


def _kernels(values: Tensor) -> Tensor:
    """Sums over each kernel: ``[K, C, ...]`` -> ``[K, C]``."""
    return values.reshape(*values.shape[:2], -1).sum(dim=2)
