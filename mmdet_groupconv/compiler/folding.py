"""Turning layers into units: norms go into weights, gates that never change into connections."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import Gate, GroupedConv2d, SelfGatedConv2d, SeparableConv2d, connection
from .fused import NONE, Activation, Geometry
from .gated import GatedConv, SelfGatedConv
from .static import StaticConv
from .unit import DepthwiseConv, Normalise, Prepare, Unit

_EMPTY_MAP = 32, 32


class StaysEagerError(Exception):
    """Why a module has no compact form and is run as it is."""


def units_of(
    conv: nn.Module,
    norm: nn.Module | None = None,
    activation: Activation = NONE,
    heads: int | None = None,
) -> list[Unit]:
    """The units of a convolution, its norm and its activation.

    heads: for a convolution whose gates its host makes, how many they have. Raises StaysEagerError.
    """
    if isinstance(conv, SeparableConv2d):
        if conv.depthwise is None:
            return units_of(conv.pointwise, norm, activation)
        return units_of(conv.depthwise) + units_of(conv.pointwise, norm, activation)
    _check_convolution(conv)
    if not can_fold(norm):
        raise StaysEagerError(f'its {type(norm).__name__} is no fixed scale and shift')
    by_host = isinstance(conv, GroupedConv2d) and not isinstance(conv, SelfGatedConv2d)
    frozen = conv.frozen if isinstance(conv, GroupedConv2d) else None
    if by_host and frozen is None and heads is None:
        raise StaysEagerError('its gates come from a host that is not known')
    weight, bias = _fold(conv, norm)
    geometry = Geometry(conv.stride, conv.padding, conv.dilation, conv.groups)
    arguments = weight, bias, geometry, activation
    if not isinstance(conv, GroupedConv2d):
        depthwise = conv.groups == conv.in_channels == conv.out_channels > 1
        return [DepthwiseConv(*arguments) if depthwise else StaticConv(*arguments)]
    filters = torch.arange(conv.out_channels, device=weight.device)
    if by_host and frozen is None:
        return [GatedConv(*arguments, filters * heads // conv.out_channels)]
    before = [] if by_host else _units_before(conv)
    gate = _show_gate(conv) if frozen is None else frozen
    if conv.static_gate or frozen is not None:
        connections = connection(gate.value, gate.assign, conv.out_channels)[0]
        return [*before, StaticConv(*arguments, connections)]
    groups = gate.assign
    if groups is None:
        groups = filters * gate.mask.size(1) // conv.out_channels
    elif groups.is_floating_point():
        raise StaysEagerError('its gates come with the image, its groups from a matrix')
    return [*before, SelfGatedConv(conv, *arguments, groups)]


def _check_convolution(conv: nn.Module) -> None:
    name = type(conv).__name__
    if type(conv) is not nn.Conv2d and not isinstance(conv, GroupedConv2d):
        raise StaysEagerError(f'{name} is not known')
    if isinstance(conv, GroupedConv2d):
        own = SelfGatedConv2d if isinstance(conv, SelfGatedConv2d) else GroupedConv2d
        for method in ('forward', 'convolve'):
            if getattr(type(conv), method) is not getattr(own, method):
                raise StaysEagerError(f'{name} has a {method} of its own')
    if conv.padding_mode != 'zeros' or isinstance(conv.padding, str):
        raise StaysEagerError(f'padding={conv.padding!r} with {conv.padding_mode}')


def _units_before(conv: SelfGatedConv2d) -> list[Unit]:
    """A norm with a ReLU becomes one step; whatever else comes first is run as it is."""
    modules = conv.before()
    if type(conv).prepare is not SelfGatedConv2d.prepare:
        return [Prepare(conv)]
    if not modules:
        return []
    known = len(modules) == 2 and isinstance(modules[0], _BatchNorm) and can_fold(modules[0])
    if known and type(modules[1]) is nn.ReLU:
        return [Normalise(*_scale_and_shift(modules[0]))]
    return [Prepare(conv)]


def can_fold(norm: nn.Module | None) -> bool:
    """Whether a norm is a fixed scale and shift of each channel."""
    if norm is None or isinstance(norm, nn.Identity):
        return True
    return isinstance(norm, _BatchNorm) and norm.track_running_stats


def _fold(conv: nn.Conv2d, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    weight = conv.weight.detach().clone()
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().clone()
    if norm is None or isinstance(norm, nn.Identity):
        return weight, bias
    scale, shift = _scale_and_shift(norm)
    return weight * scale[:, None, None, None], bias * scale + shift


def _scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight.detach(), shift * norm.weight.detach()
        shift = shift + norm.bias.detach()
    return scale, shift


def _show_gate(conv: SelfGatedConv2d) -> Gate:
    """Of an empty map: what is the same for all."""
    with torch.no_grad():
        return conv.gate(conv.weight.new_zeros(1, conv.in_channels, *_EMPTY_MAP))
