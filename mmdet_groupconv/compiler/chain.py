"""Convolutions one after the other, of which later ones tell earlier ones what they need."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import Gate
from .fastest import Fastest
from .gated import GatedConv, SelfGatedConv
from .maps import FeatureMap, one_at_least
from .static import StaticConv
from .unit import Normalise, Unit


class Chain(nn.Module):
    """Units that nothing else looks into: an output that no later unit reads is not computed.

    Where gates come with the image, a batch is run one by one, each with its own work alone, or
    together, as in training, where starting many small operations costs more than they do.

    dtype: that maps are computed in; None for that of the input.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.per_image = any(unit.per_image for unit in units)
        self.forms = Fastest()
        self.dtype: torch.dtype | None = None
        needed = None
        for unit in reversed(units):
            if needed is not None and isinstance(unit, StaticConv):
                unit.drop(one_at_least(needed))
            needed = None if unit.per_image else unit.reads(None, needed)
        for i, unit in enumerate(units):
            if isinstance(unit, GatedConv) and unit.order is not None:
                _push_order(unit, units[i + 1 :])

    def forward(
        self, x: Tensor, gates: Sequence[Gate | None] | None = None, out: Tensor | None = None
    ) -> Tensor:
        """x: ``[B, C, H, W]``. gates: for the batch, one a unit, where the host makes them.

        out: where given, the last unit's outputs are added onto it, in place, before its
        activation. Returns ``[B, K, H', W']``.
        """
        x = self.entry(x)
        if len(x) == 0:  # a detector's RoIs
            return self._empty(x) if out is None else out
        gates = [None] * len(self.units) if gates is None else gates
        if len(x) == 1 or not self.per_image:
            return self._run(x, gates, out)
        forms = {'one by one': self._one_by_one, 'together': self._together}

        def run(form: str, out: Tensor | None) -> Tensor:
            return forms[form](x, gates, out)

        return run(self.forms.choose(x, forms, run, out, lambda: _load(gates)), out)

    def entry(self, x: Tensor) -> Tensor:
        """The input as units take it."""
        return x.to(self.dtype or x.dtype).contiguous(memory_format=torch.channels_last)

    def _one_by_one(self, x: Tensor, gates: Sequence[Gate | None], out: Tensor | None) -> Tensor:
        done = [
            self._run(
                x[i : i + 1],
                [None if gate is None else _of_image(gate, i) for gate in gates],
                None if out is None else out[i : i + 1],
            )
            for i in range(len(x))
        ]
        return torch.cat(done) if out is None else out

    def _together(self, x: Tensor, gates: Sequence[Gate | None], out: Tensor | None) -> Tensor:
        y, last = FeatureMap(x), len(self.units) - 1
        for i, unit in enumerate(self.units):
            run = unit.run_batch if isinstance(unit, GatedConv) else unit
            y = run(y, gates[i], None, out if i == last else None)
        return y.in_order(self.units[-1].out_channels, self.units[-1].memory)

    def _empty(self, x: Tensor) -> Tensor:
        for unit in self.units:
            x = unit.empty(x)
        return x

    def _run(self, x: Tensor, gates: Sequence[Gate | None], out: Tensor | None) -> Tensor:
        needed = needed_by(self.units, gates)
        y, last = FeatureMap(x), len(self.units) - 1
        for i, unit in enumerate(self.units):
            y = unit(y, gates[i], needed[i], out if i == last else None)
        return y.in_order(self.units[-1].out_channels, self.units[-1].memory)


def needed_by(units: Sequence[Unit], gates: Sequence[Gate | None]) -> list[Tensor | None]:
    """Of each unit's outputs, those that the next one reads for these gates; None for all."""
    needed: list[Tensor | None] = [None] * len(units)
    for i in range(len(units) - 1, 0, -1):
        read = units[i].reads(gates[i], needed[i])
        needed[i - 1] = None if read is None else one_at_least(read)
    return needed


def _push_order(unit: GatedConv, later: Sequence[Unit]) -> None:
    """Have later units take the outputs as they come, where the first convolution of them can."""
    passing = list(itertools.takewhile(lambda unit: isinstance(unit, Normalise), later))
    reader = next(iter(later[len(passing) :]), None)
    if isinstance(reader, SelfGatedConv) and reader.in_any_order:
        for step in (*passing, reader):
            step.expect(unit.order)
        unit.order = None


def _load(gates: Sequence[Gate | None]) -> float:
    shares = [gate.mask.mean() for gate in gates if gate is not None]
    return float(torch.stack(shares).mean()) if shares else 1.0


def _of_image(gate: Gate, image: int) -> Gate:
    strength = None if gate.strength is None else gate.strength[image : image + 1]
    return gate._replace(mask=gate.mask[image : image + 1], strength=strength)
