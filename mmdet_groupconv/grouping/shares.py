"""How much of each layer gates by image are to keep."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..layers import DGCConv2d, MaskGenerator
from .importance import by_head


class MSGCGates(NamedTuple):
    """A mask generator of MSGC and the convolution that it gates.

    agrees: where a channel that no head reads isn't computed either, and heads had better close the
    same ones. sources: the names of what computes those channels alone, else none.
    """

    name: str
    generator: MaskGenerator
    agrees: bool
    sources: tuple[str, ...]

    def values(self, importance: np.ndarray) -> np.ndarray:
        """What is lost by each gate that closes; ``[K, C]`` of connections -> ``[gates]``."""
        return self._by_head(importance).ravel()

    def start(self, importance: np.ndarray, share: float) -> None:
        """Open, and ready to close first what matters least, all but `share` of the channels."""
        values = self._by_head(importance)
        values = np.broadcast_to(values, (self.generator.heads, values.shape[1])).copy()
        self.generator.start_from_importance(torch.from_numpy(values), share)

    def _by_head(self, importance: np.ndarray) -> np.ndarray:
        """``[heads, C]``, or ``[1, C]`` where heads agree; heads are of contiguous filters."""
        filters = len(importance)
        values = by_head(importance, np.arange(filters) * self.generator.heads // filters)
        return values.sum(axis=0, keepdims=True) if self.agrees else values


class DGCGates(NamedTuple):
    """A layer of DGC, whose heads drop as many channels each."""

    name: str
    layer: DGCConv2d
    sources: tuple[str, ...] = ()

    def values(self, importance: np.ndarray) -> np.ndarray:
        """What is lost by each further channel that all heads drop, ``[C]``; the last one stays."""
        values = np.sort(self._by_head(importance), axis=1).sum(axis=0)
        values[-1] = np.inf
        return values

    def start(self, importance: np.ndarray, share: float) -> None:
        """As :class:`MSGCGates`; `share` is the schedule's."""
        self.layer.start_from_importance(torch.from_numpy(self._by_head(importance)))

    def _by_head(self, importance: np.ndarray) -> np.ndarray:
        return by_head(importance, self.layer.assign.cpu().numpy())


Gates = MSGCGates | DGCGates


def gates_by_image(network: nn.Module) -> Iterator[Gates]:
    """All of a network."""
    for path, module in network.named_modules():
        if isinstance(module, DGCConv2d):
            yield DGCGates(path, module)
        readers = getattr(module, 'readers', {})
        for conv, generator in getattr(module, 'mask_generators', dict)().items():
            own = getattr(module.get_submodule(conv), 'gate_from_input', False)
            agrees = conv in readers and not own
            sources = readers[conv] if agrees else ()
            yield MSGCGates(
                _join(path, conv), generator, agrees, tuple(_join(path, s) for s in sources)
            )


def gate_shares(
    network: nn.Module,
    importance: dict[str, np.ndarray],
    macs: dict[str, float],
    surplus: float,
) -> dict[str, float]:
    """The share of each layer's channels that stays, where what matters least for its MACs goes.

    importance: ``[K, C]`` of each layer, in one unit; layers without are left alone. macs: of each
    layer while its gates are open. surplus: MACs that have to go.
    """
    found = [gates for gates in gates_by_image(network) if gates.name in importance]
    if not found:
        return {}
    values = [gates.values(importance[gates.name]) for gates in found]
    costs = [
        sum(macs[name] for name in (gates.name, *gates.sources)) / v.size
        for gates, v in zip(found, values, strict=True)
    ]
    per_mac = np.concatenate([v / cost for v, cost in zip(values, costs, strict=True)])
    rank = per_mac.argsort(kind='stable').argsort()
    ranks = np.split(rank, np.cumsum([v.size for v in values])[:-1])

    def shares(gone: int) -> dict[str, float]:
        return {g.name: float((r >= gone).mean()) for g, r in zip(found, ranks, strict=True)}

    def saved(gone: int) -> float:
        return _saved(found, shares(gone), macs)

    return shares(bisect_left(range(np.isfinite(per_mac).sum()), surplus, key=saved))


def _saved(found: list[Gates], shares: dict[str, float], macs: dict[str, float]) -> float:
    """MACs; a layer whose outputs aren't read, either, saves the two shares' product."""
    left = dict.fromkeys(macs, 1.0)
    for gates in found:
        for name in (gates.name, *gates.sources):
            left[name] *= shares[gates.name]
    return sum(macs[name] * (1 - share) for name, share in left.items())


def _join(*path: str) -> str:
    return '.'.join(part for part in path if part)
