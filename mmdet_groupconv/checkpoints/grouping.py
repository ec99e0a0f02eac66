"""What grouped networks have that dense checkpoints lack, and the other way round."""

from torch import nn

from ..layers import GateNet, GroupedLayer


def grouping_keys(model: nn.Module) -> list[str]:
    """State-dict keys that belong to the grouping: gate nets, masks, assignments, schedules.

    All that a grouped layer owns but its weight and bias, and everything in gate nets.
    """
    owned = set()
    for name, module in model.named_modules():
        prefix = f'{name}.' if name else ''
        if isinstance(module, GateNet):
            owned.update(prefix + key for key in module.state_dict())
        elif isinstance(module, GroupedLayer):
            own = module.state_dict().keys() - {'weight', 'bias'}
            owned.update(prefix + key for key in own)
    return sorted(owned)


def trimmed_keys(model: nn.Module) -> list[str]:
    """Beginnings of keys that a checkpoint may hold for layers that `model` does without."""
    return [
        f'{prefix}{name}.'
        for prefix, module in ((n and f'{n}.', m) for n, m in model.named_modules())
        for name in getattr(module, 'trimmed', ())
    ]
