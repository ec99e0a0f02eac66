"""SGC's masks: published with one number a weight, here with one a connection."""

import torch
from torch import Tensor


def merge_masks(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published -> ours: ``_mask [K, C, kh, kw]`` -> ``mask [K, C]``; in linear layers the same.

    Raises ValueError for a mask that differs within a kernel or is not 0/1.
    """
    merged = {}
    for key, value in state.items():
        if key.endswith('._mask'):
            mask = value.flatten(2)[..., 0].clone() if value.ndim > 2 else value
            if (
                not torch.equal(value, _spread(mask, value))
                or not ((mask == 0) | (mask == 1)).all()
            ):
                raise ValueError(
                    f'{key} is no mask of channels: expected 0 or 1, the same over each kernel'
                )
            key, value = key.removesuffix('_mask') + 'mask', mask
        merged[key] = value
    return merged


def spread_masks(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ours -> published."""
    spread = {}
    for key, value in state.items():
        if key.endswith('.mask'):
            key = key.removesuffix('mask')
            key, value = key + '_mask', _spread(value, state[f'{key}weight']).contiguous()
        spread[key] = value
    return spread


def take_dense_masks(state: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Remove the masks of layers that we keep dense from `state`. Returns the layers' names.

    expected: what the published layout has for our network.

    Raises ValueError where such a mask isn't 1 everywhere.
    """
    layers = []
    for key in [key for key in state if key.endswith('._mask') and key not in expected]:
        layer = key.removesuffix('._mask')
        weight = state.get(f'{layer}.weight')
        if weight is None or f'{layer}.weight' not in expected:
            continue  # a layer that doesn't belong here at all
        mask = state.pop(key)
        if mask.shape != weight.shape or mask.dtype != weight.dtype or not (mask == 1).all():
            raise ValueError(f'{key} prunes a layer that is dense here: expected 1 everywhere')
        layers.append(layer)
    return layers


def _spread(mask: Tensor, weight: Tensor) -> Tensor:
    return mask[(...,) + (None,) * (weight.ndim - mask.ndim)].expand(weight.shape)
