"""How each layer of a compact network is run, how much it does, and why."""

import copy
import math
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .chain import Chain
from .fastest import Fastest
from .gated import GatedConv, SelfGatedConv
from .static import StaticConv
from .stem import CompactStem
from .unit import DepthwiseConv, Normalise, Prepare, Unit


class Layer(NamedTuple):
    """One layer of a compact network.

    name: as in the network that was compacted. kind: of unit. macs: multiply-accumulates that it
    did, for all calls. form: the one it took for its largest map. milliseconds: of every form that
    was tried there. reason: why it is dense or eager, or why that form; '' where there is nothing
    to say.
    """

    name: str
    kind: str
    macs: int
    form: str
    milliseconds: dict[str, float]
    reason: str


_KINDS = {
    StaticConv: 'static',
    GatedConv: 'gates of the block',
    SelfGatedConv: 'own gates',
    DepthwiseConv: 'depthwise',
    Normalise: 'norm before',
    Prepare: 'prepare',
}


@torch.no_grad()
def explain(model: nn.Module, run: Callable[[nn.Module], object]) -> list[Layer]:
    """A row a layer of what :func:`~mmdet_groupconv.compiler.compact` returned.

    run: calls the network it gets, on whatever images; forms are timed anew for these.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(getattr(module, 'forms', None), Fastest):
            module.forms = Fastest()
    run(model)
    with FlopCounterMode(display=False, custom_mapping=_counters()) as counter:
        run(model)
    done = {
        name.partition('.')[2]: sum(counts.values()) // 2
        for name, counts in counter.get_flop_counts().items()
    }
    layers = [_layer(name, path, unit, done.get(path, 0)) for name, path, unit in _units(model)]
    eager = [
        Layer(name, type(model.get_submodule(name)).__name__, done.get(name, 0), 'eager', {}, why)
        for name, why in model.stays_eager.items()
    ]
    return layers + eager


def _units(model: nn.Module) -> Iterator[tuple[str, str, Unit]]:
    """With their names in the network that was compacted, and in this one."""
    for path, module in model.named_modules():
        if isinstance(module, CompactStem):
            yield path, path, module.unit
        if not isinstance(module, Chain):
            continue
        owner = path.rpartition('.')[0]
        for number, unit in enumerate(module.units):
            name = '.'.join(part for part in (owner, unit.name) if part)
            yield name, f'{path}.units.{number}', unit


def _layer(name: str, path: str, unit: Unit, macs: int) -> Layer:
    forms: Fastest | None = getattr(unit, 'forms', None)
    chosen, milliseconds = None, {}
    if forms is not None and forms.chosen:
        key = max(forms.chosen, key=lambda key: key[2])  # the largest map
        chosen = forms.chosen[key]
        milliseconds = {
            _form(unit, form): 1000 * seconds for form, seconds in forms.seconds[key].items()
        }
    form = _form(unit, chosen)
    return Layer(name, _KINDS[type(unit)], macs, form, milliseconds, _reason(unit, chosen))


def _form(unit: Unit, form: Hashable | None) -> str:
    if form is None:
        return 'only one'
    return unit.describe(form) if isinstance(unit, StaticConv) else str(form)


def _reason(unit: Unit, form: Hashable | None) -> str:
    if isinstance(unit, StaticConv) and unit.connected is None:
        return 'not grouped'
    if isinstance(unit, StaticConv) and form in (None, 0):
        return 'one convolution with zeros was the fastest'
    if form == 'whole':
        return 'its map costs more to gather than to convolve'
    return ''


def _counters() -> dict:
    """Twice the multiply-accumulates of oneDNN's calls, as PyTorch's counter has it for others."""
    names = '_convolution_pointwise', '_convolution_pointwise_'
    found = [getattr(torch.ops.mkldnn, name, None) for name in names]
    return {operator: _of_call for operator in found if operator is not None}


def _of_call(*args, out_val: Tensor, **_) -> int:
    # Maps come first, then the weight and its bias, whose length is the number of filters.
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    bias = next(i for i, tensor in enumerate(tensors) if tensor.dim() == 1)
    return 2 * out_val.numel() * math.prod(tensors[bias - 1].shape[1:])


_of_call._get_raw = True
