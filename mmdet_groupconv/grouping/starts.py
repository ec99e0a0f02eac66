"""Where the fine-tuning of a grouped network starts: what was chosen, put into its layers."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..layers import SelfGrouping
from .clusters import Clusters
from .regular import Groups
from .shares import gates_by_image


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

    importance: ``[K, C]`` of each layer; layers without are left alone. kept: the share of each
    layer's channels that is to stay open, 1 where it says nothing.
    """
    for gates in gates_by_image(network):
        if gates.name in importance:
            gates.start(importance[gates.name], (kept or {}).get(gates.name, 1.0))
