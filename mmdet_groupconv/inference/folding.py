"""Turning layers into units: norms go into weights, gates that never change into connections."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import Gate, GroupedConv2d, SelfGatedConv2d, SeparableConv2d, connection
from .fused import NONE, Activation, Geometry
from .gated import GatedConv, SelfGatedConv
from .static import StaticConv
from .unit import DepthwiseConv, Normalise, Unit


def units_of(
    conv: nn.Module,
    norm: nn.Module | None = None,
    activation: Activation = NONE,
    gate_groups: int | None = None,
) -> list[Unit] | None:
    """The units of a convolution, its norm and its activation; None where they have none.

    gate_groups: for a convolution whose gates its host makes, how many heads they have.
    """
    if isinstance(conv, SeparableConv2d):
        if conv.depthwise is None:
            return units_of(conv.pointwise, norm, activation)
        return units_of(conv.depthwise) + units_of(conv.pointwise, norm, activation)
    if not _is_plain(conv) or not can_fold(norm):
        return None
    gated_by_host = isinstance(conv, GroupedConv2d) and not isinstance(conv, SelfGatedConv2d)
    frozen = conv.frozen if isinstance(conv, GroupedConv2d) else None
    if gated_by_host and frozen is None and gate_groups is None:
        return None
    weight, bias = _fold(conv, norm)
    geometry = Geometry(conv.stride, conv.padding, conv.dilation, conv.groups)
    arguments = weight, bias, geometry, activation
    if not isinstance(conv, GroupedConv2d):
        depthwise = conv.groups == conv.in_channels == conv.out_channels > 1
        return [DepthwiseConv(*arguments) if depthwise else StaticConv(*arguments)]
    if gated_by_host and frozen is None:
        filters = torch.arange(conv.out_channels, device=weight.device)
        return [GatedConv(*arguments, filters * gate_groups // conv.out_channels)]
    own_norm = getattr(conv, 'norm', None)
    before = [] if own_norm is None else [Normalise(*_scale_and_shift(own_norm))]
    gate = _show_gate(conv) if frozen is None else frozen
    if conv.static_gate or frozen is not None:
        connections = connection(gate.value, gate.assign, conv.out_channels)[0]
        return [*before, StaticConv(*arguments, connections)]
    groups = gate.assign
    if groups is None:
        filters = torch.arange(conv.out_channels, device=weight.device)
        groups = filters * gate.mask.size(1) // conv.out_channels
    return [*before, SelfGatedConv(conv, *arguments, groups)]


def can_fold(norm: nn.Module | None) -> bool:
    """Whether a norm is a fixed scale and shift of each channel."""
    if norm is None or isinstance(norm, nn.Identity):
        return True
    return isinstance(norm, _BatchNorm) and norm.track_running_stats


def _is_plain(conv: nn.Module) -> bool:
    known = type(conv) is nn.Conv2d or isinstance(conv, GroupedConv2d)
    return known and conv.padding_mode == 'zeros' and not isinstance(conv.padding, str)


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
    with torch.no_grad():
        return conv.gate(conv.weight.new_zeros(1, conv.in_channels, 1, 1))
