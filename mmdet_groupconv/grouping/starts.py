"""Where the fine-tuning of a grouped network starts: what was chosen, put into its layers."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..layers import DGCConv2d, MaskGenerator, SelfGrouping
from .clusters import Clusters
from .regular import Groups


def start_groups(
    network: nn.Module,
    plan: dict[str, Groups | Clusters | None],
    weights: Callable[[str, Groups | Clusters | None], torch.Tensor],
) -> None:
    """Groups that are the same for every image, put into the layers by name; None is dense.

    weights: of a layer by name in such groups, see :class:`~mmdet_groupconv.grouping.refit.Refit`.
    """
    for name, chosen in plan.items():
        layer = network.get_submodule(name)
        layer.weight.detach().copy_(weights(name, chosen))
        if isinstance(layer, SelfGrouping):
            layer.mask.copy_(torch.ones(()) if chosen is None else torch.from_numpy(chosen.mask))
        elif isinstance(chosen, Groups):
            layer.start_from_groups(*map(torch.from_numpy, (chosen.channels, chosen.filters)))
        else:
            ends = layer.in_channels, layer.out_channels
            layer.start_from_groups(*(torch.zeros(n, dtype=torch.int64) for n in ends))


def start_gates(
    network: nn.Module,
    importance: dict[str, np.ndarray],
    kept: dict[str, float] | None = None,
) -> None:
    """Gates by image of MSGC and DGC: open, and ready to close first what matters least.

    To each of MSGC's heads by itself, or to all of them together where a channel that none of them
    reads is not computed either.

    importance: ``[K, C]`` of each layer; layers without are left alone. kept: the share of each
    layer's channels that is to stay open, 1 where it says nothing; DGC's layers know theirs.
    """
    kept = kept or {}
    saving = _saving_readers(network)
    for name, generator in mask_generators(network).items():
        if name in importance:
            filters = np.arange(len(importance[name]))
            contiguous = filters * generator.heads // len(filters)
            by_head = _by_head(importance[name], contiguous)
            if name in saving:
                by_head = by_head.sum(dim=0).expand_as(by_head)
            generator.start_from_importance(by_head, kept.get(name, 1.0))
    for name, layer in network.named_modules():
        if isinstance(layer, DGCConv2d) and name in importance:
            interleaved = layer.assign.cpu().numpy()
            layer.start_from_importance(_by_head(importance[name], interleaved))


def mask_generators(network: nn.Module) -> dict[str, MaskGenerator]:
    """MSGC's mask generators by the name of the convolution that each gates."""
    found = {}
    for name, module in network.named_modules():
        for conv, generator in getattr(module, 'mask_generators', dict)().items():
            found['.'.join(part for part in (name, conv) if part)] = generator
    return found


def _saving_readers(network: nn.Module) -> set[str]:
    """Convolutions that alone read what others of their block compute, and don't decide by it."""
    return {
        '.'.join(part for part in (name, conv) if part)
        for name, block in network.named_modules()
        for conv in getattr(block, 'readers', ())
        if not getattr(block.get_submodule(conv), 'gate_from_input', False)
    }


def _by_head(importance: np.ndarray, assign: np.ndarray) -> torch.Tensor:
    """Sums over the filters of each head: ``[K, C]`` and ``[K]`` -> ``[heads, C]``."""
    heads = np.eye(assign.max() + 1)[assign]  # [K, heads]
    return torch.from_numpy(heads.T @ importance)
