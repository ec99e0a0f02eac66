"""Least squares over what layers read."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLES = 1024  # positions of a map; more say little, since neighbours are alike
WIDE = 8192  # weights of a filter: the second moments of more take too much memory
_RIDGE = 0.01  # of the inputs' mean power


def read_by(module: nn.Module, x: Tensor) -> Tensor:
    """What each output position reads: ``[positions, weights of a filter]``."""
    if isinstance(module, nn.Linear):
        return x
    if module.kernel_size == (1, 1) and module.padding == (0, 0):
        rows, columns = module.stride
        x = x[:, :, ::rows, ::columns].flatten(2)
    else:
        x = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
    return x.transpose(1, 2).flatten(0, 1)


def filters_and_reads(mask: Tensor, kernel: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Filters that read the same, and which of their weights those are, as indices.

    mask: ``[K, C]``. kernel: weights of a filter for each channel.
    """
    rows, group_of = mask.unique(dim=0, return_inverse=True)
    for number, row in enumerate(rows):
        read = row.repeat_interleave(kernel).nonzero()[:, 0]
        yield (group_of == number).nonzero()[:, 0], read


def ridge(power: Tensor) -> Tensor:
    """What is added to second moments of this mean."""
    return _RIDGE * power.clamp(min=1e-12)


def solve(gram: Tensor, wanted: Tensor) -> Tensor:
    """Of a positive definite matrix."""
    return torch.cholesky_solve(wanted, torch.linalg.cholesky(gram))
