"""Where RoIAlign looks: samples within the bins of boxes, along one side of a map."""

import torch
from torch import Tensor


def bin_steps(size: Tensor, bins: int, sampling_ratio: int, aligned: bool) -> tuple[Tensor, Tensor]:
    """The size of a bin, and how many samples it has, ``[N]`` each.

    size: of the boxes, ``[N]``, in pixels of the map. sampling_ratio, aligned: RoIAlign's.
    """
    if not aligned:
        size = size.clamp(min=1)
    if sampling_ratio > 0:
        return size / bins, torch.full_like(size, sampling_ratio).long()
    return size / bins, (size / bins).ceil().long()


def bin_samples(
    start: Tensor, step: Tensor, bins: int, number: int, size: int
) -> tuple[Tensor, Tensor]:
    """The pixels of `number` samples in each bin, and their weights.

    start, step: of the bins, ``[N]``. size: of the map. Returns ``[N, bins, 2 * number]`` each.
    """
    within = (torch.arange(number, dtype=start.dtype) + 0.5) / number
    places = start[:, None, None] + (torch.arange(bins)[:, None] + within) * step[:, None, None]
    seen = (places >= -1) & (places <= size)
    places = places.clamp(min=0)
    low = places.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    share = torch.where(low == size - 1, 0, places - low)
    weights = torch.cat(((1 - share) * seen, share * seen), dim=2)
    return torch.cat((low, high), dim=2), weights
