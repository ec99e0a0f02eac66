"""A model's parts, checked against each other before a run writes anything."""

import torch
from torch import nn

from ..analysis.macs import evaluating

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
    with torch.no_grad(), evaluating(model):
        maps = backbone(image)
        try:
            neck(maps)
        except (RuntimeError, AssertionError, IndexError) as error:
            raise ValueError(
                f'model.neck {type(neck).__name__} has '
                f'in_channels={getattr(neck, "in_channels", None)}, expected those of the maps '
                f'that {type(backbone).__name__} returns: {[x.size(1) for x in maps]} '
                f'({error or type(error).__name__})'
            ) from error
