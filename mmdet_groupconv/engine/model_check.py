"""A model's parts, checked against each other before a run writes anything."""

import torch
from torch import nn

from ..layers import evaluating

_SIDE = 64  # pixels: enough for five strides


def check_maps(model: nn.Module) -> None:
    """Raise ValueError where a detector's neck can't read what its backbone returns.

    Both see one small image of zeros; nothing of the model changes.
    """
    backbone, neck = getattr(model, 'backbone', None), getattr(model, 'neck', None)
    if neck is None:
        return
    weight = next(backbone.parameters(), torch.zeros(()))
    image = weight.new_zeros(1, getattr(backbone, 'in_channels', 3), _SIDE, _SIDE)
    expected = getattr(neck, 'in_channels', None)
    widths: list[int] = []
    with torch.no_grad(), evaluating(model):
        try:
            maps = backbone(image)
            widths = [x.size(1) for x in maps]
            neck(maps)
        except (RuntimeError, AssertionError, IndexError) as error:
            named = isinstance(expected, list | tuple)
            if not named or not widths or list(expected) == widths:
                return  # other kinds of parts may not take so small an image
            raise ValueError(
                f'model.neck {type(neck).__name__} has in_channels={expected}, expected those of '
                f'the maps that {type(backbone).__name__} returns: {widths} '
                f'({error or type(error).__name__})'
            ) from error
