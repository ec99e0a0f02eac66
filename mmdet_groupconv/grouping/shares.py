"""How much of each layer gates by image are to keep."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import nn

from ..layers import MaskGenerator
from .importance import by_head


class GatedConv(NamedTuple):
    """A convolution that one of MSGC's mask generators gates.

    agrees: where a channel that no head reads isn't computed either, and heads had better close the
    same ones. sources: the names of what computes those channels alone, else none.
    """

    name: str
    generator: MaskGenerator
    agrees: bool
    sources: tuple[str, ...]

    def values(self, importance: np.ndarray) -> np.ndarray:
        """Of each head and channel ``[heads, C]``, or ``[1, C]`` where heads agree.

        importance: ``[K, C]``. Heads are of contiguous filters.
        """
        filters = len(importance)
        values = by_head(importance, np.arange(filters) * self.generator.heads // filters)
        return values.sum(axis=0, keepdims=True) if self.agrees else values


def gated_convs(network: nn.Module) -> Iterator[GatedConv]:
    """All of a network."""
    for path, module in network.named_modules():
        readers = getattr(module, 'readers', {})
        for conv, generator in getattr(module, 'mask_generators', dict)().items():
            own = getattr(module.get_submodule(conv), 'gate_from_input', False)
            agrees = conv in readers and not own
            sources = readers[conv] if agrees else ()
            yield GatedConv(
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
    convs = [conv for conv in gated_convs(network) if conv.name in importance]
    if not convs:
        return {}
    values = [conv.values(importance[conv.name]).ravel() for conv in convs]
    costs = [
        sum(macs[name] for name in (conv.name, *conv.sources)) / v.size
        for conv, v in zip(convs, values, strict=True)
    ]
    per_mac = np.concatenate([v / cost for v, cost in zip(values, costs, strict=True)])
    rank = per_mac.argsort(kind='stable').argsort()
    ranks = np.split(rank, np.cumsum([v.size for v in values])[:-1])

    def shares(gone: int) -> dict[str, float]:
        return {c.name: float((r >= gone).mean()) for c, r in zip(convs, ranks, strict=True)}

    def saved(gone: int) -> float:
        return _saved(convs, shares(gone), macs)

    return shares(bisect_left(range(rank.size), surplus, key=saved))


def _saved(convs: list[GatedConv], shares: dict[str, float], macs: dict[str, float]) -> float:
    """MACs; a layer whose outputs aren't read, either, saves the two shares' product."""
    left = dict.fromkeys(macs, 1.0)
    for conv in convs:
        for name in (conv.name, *conv.sources):
            left[name] *= shares[conv.name]
    return sum(macs[name] * (1 - share) for name, share in left.items())


def _join(*path: str) -> str:
    return '.'.join(part for part in path if part)
