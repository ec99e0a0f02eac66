"""The form in which the papers' public code runs, to measure against."""

import copy
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Gate, GroupedConv2d, connection


def to_published_form(model: nn.Module) -> nn.Module:
    """A copy with the same outputs whose gated layers compute what the papers' code computes.

    Per-image gates: the input is copied for every group, masked, the copies are concatenated, and a
    group convolution of the dense cost reads them. Fixed groups: the weight is masked, and a dense
    convolution runs.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, GroupedConv2d):
            module.convolve = MethodType(_convolve, module)
    return model


def _convolve(layer: GroupedConv2d, x: Tensor, gate: Gate) -> Tensor:
    geometry = layer.stride, layer.padding, layer.dilation
    groups, filters = gate.mask.size(1), layer.out_channels
    if layer.static_gate or (gate.assign is not None and gate.assign.is_floating_point()):
        connections = connection(gate.value, gate.assign, filters)[0]
        y = F.conv2d(x, layer.weight * connections[..., None, None], layer.bias, *geometry)
    else:
        value = gate.value.to(x.dtype)[..., None, None]  # [B or 1, G, C, 1, 1]
        copies = torch.cat([x * value[:, g] for g in range(groups)], dim=1)
        y = _by_group(layer, copies, gate, geometry)
    layer._show_gate(gate, x, y)
    return y


def _by_group(layer: GroupedConv2d, copies: Tensor, gate: Gate, geometry: tuple) -> Tensor:
    groups, weight, bias = gate.mask.size(1), layer.weight, layer.bias
    if gate.assign is None:
        return F.conv2d(copies, weight, bias, *geometry, groups=groups)
    order = gate.assign.argsort(stable=True)
    sizes = gate.assign.bincount(minlength=groups).tolist()
    weight, bias = weight[order], None if bias is None else bias[order]
    if len(set(sizes)) == 1:
        y = F.conv2d(copies, weight, bias, *geometry, groups=groups)
    else:
        biases = [None] * groups if bias is None else bias.split(sizes)
        parts = zip(copies.chunk(groups, dim=1), weight.split(sizes), biases, strict=True)
        y = torch.cat([F.conv2d(*part, *geometry) for part in parts], dim=1)
    return y[:, order.argsort()]
