"""DGC's layers: published as modules of their own for each head, here as one dense weight."""

import re
from itertools import count

import torch
from torch import Tensor

# The saliency net's tensors: our 1x1 convolutions, their linear layers.
_SALIENCY = ('fc1.weight', 'fc2.weight', 'fc2.bias')


def merge_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published -> ours. Filter k is the (k // heads)-th of head k % heads.

    Raises ValueError where the number of inactive channels is none, or not in float32.
    """
    merged = {key: value for key, value in state.items() if '.headconv_' not in key}
    for layer in _layers(state, r'\.headconv_0\.conv\.weight'):
        heads = next(h for h in count() if f'{layer}.headconv_{h}.conv.weight' not in state)
        parts = {
            key: [state[f'{layer}.headconv_{head}.{key}'] for head in range(heads)]
            for key in ('conv.weight', *_SALIENCY)
        }
        merged[f'{layer}.weight'] = torch.stack(parts['conv.weight'], dim=1).flatten(0, 1)
        for key in _SALIENCY:
            value = torch.cat(parts[key])
            merged[f'{layer}.saliency.{key}'] = value[..., None, None] if value.ndim > 1 else value
        inactive = merged.pop(f'{layer}._inactive_channels')
        channels = len(parts['fc2.bias'][0])
        merged[f'{layer}.inactive'] = _count(inactive, channels, layer)
    return merged


def split_heads(state: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Ours -> published.

    Raises ValueError for filters that `heads` doesn't divide.
    """
    layers = _layers(state, r'\.saliency\.fc1\.weight')
    ours = ('weight', 'inactive', *(f'saliency.{key}' for key in _SALIENCY))
    own = {f'{layer}.{key}' for layer in layers for key in ours}
    split = {key: value for key, value in state.items() if key not in own}
    for layer in layers:
        weight = state[f'{layer}.weight']
        if len(weight) % heads:
            raise ValueError(
                f'{layer} has {len(weight)} filters for {heads} heads: the published layout '
                'has heads of equal size only'
            )
        for head in range(heads):
            split[f'{layer}.headconv_{head}.conv.weight'] = weight[head::heads].clone()
        for key in _SALIENCY:
            value = state[f'{layer}.saliency.{key}']
            value = value[..., 0, 0] if value.ndim > 1 else value
            for head, part in enumerate(value.chunk(heads)):
                split[f'{layer}.headconv_{head}.{key}'] = part.clone()
        split[f'{layer}._inactive_channels'] = state[f'{layer}.inactive'].float()[None]
    return split


def _layers(state: dict[str, Tensor], end: str) -> list[str]:
    return [key[: match.start()] for key in state if (match := re.search(f'{end}$', key))]


def _count(inactive: Tensor, channels: int, layer: str) -> Tensor:
    number = inactive.item()
    if inactive.dtype is not torch.float32 or number not in range(channels + 1):
        raise ValueError(
            f'{layer}._inactive_channels is {number} ({inactive.dtype}), expected a whole number '
            f'of 0 to {channels} in float32'
        )
    return inactive[0].long()
