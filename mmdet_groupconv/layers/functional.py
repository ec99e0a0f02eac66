"""The one operation behind all methods: a convolution whose connections are gated group by group.

    y[b, k] = bias[k] + sum_c gate[b, group(k), c] * (weight[k, c] (*) x[b, c])

It has two exact forms. *Features*: multiply the input by each group's gate, one copy a group.
*Folded*: multiply the weights by the gate, one convolution a sample. The first costs memory
traffic on large maps, the second on large weights: which one it is goes by their sizes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair

from .features import convolve_features, gated

_WEIGHT_COST = 4  # measured at the sizes of ResNet-50, forward and backward


def grouped_conv2d(
    x: Tensor,
    weight: Tensor,
    gate: Tensor,
    assign: Tensor | None = None,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    sizes: tuple[int, ...] | None = None,
) -> Tensor:
    """Convolve `x` with connections gated per group; differentiable in every float argument.

    x: ``[B, C, H, W]``. weight: ``[K, C, kh, kw]``, the dense shape.
    gate: ``[B or 1, G, C]``; 0 means that the group does not read the channel.
    assign: filter -> group, as ``[K]`` int64 or ``[K, G]`` one-hot float (gradients flow through
    it); None for G equal, contiguous heads. bias: ``[K]``. sizes: filters of each group of an int64
    `assign`; else they are counted. Returns ``[B, K, H', W']``.

    Raises ValueError where shapes disagree.
    """
    _check(x, weight, gate, assign)
    geometry = stride, padding, dilation
    if gate.size(0) == 1:
        connections = connection(gate, assign, weight.size(0))[0]  # [K, C]
        return F.conv2d(x, _scale(weight, connections), bias, *geometry)
    if _is_float(assign) or _folding_pays(x, weight, gate.size(1), stride):
        return _folded(x, weight, connection(gate, assign, weight.size(0)), bias, geometry)
    if assign is None:
        return _equal_heads(x, weight, gate, bias, geometry)
    sizes = sizes or _count_filters(assign, gate.size(1))
    return _groups_in_any_order(x, weight, gate, assign, bias, geometry, sizes)


def equal_groups_conv2d(
    x: Tensor,
    weight: Tensor,
    channels: Tensor,
    filters: Tensor,
    groups: int,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """The same for disjoint groups of equal size, as one native group convolution: 1 / groups of
    the work, forward and backward.

    channels ``[C]``, filters ``[K]``: int64, those of group 0, then those of group 1, and so on.
    groups: divides both. Others and what is returned: as for :func:`grouped_conv2d`.
    """
    filter_count, channel_count, *kernel = weight.shape
    each = channel_count // groups
    own = channels.view(groups, each).repeat_interleave(filter_count // groups, dim=0)  # [K, each]
    kernels = (filters[:, None] * channel_count + own).flatten()
    packed = _Take.apply(weight.flatten(0, 1), kernels).view(filter_count, each, *kernel)
    bias = None if bias is None else bias.index_select(0, filters)
    x = permute_channels(x, channels)
    y = F.conv2d(x, packed, bias, stride, padding, dilation, groups)
    return permute_channels(y, filters.argsort())


def permute_channels(x: Tensor, order: Tensor) -> Tensor:
    """``x[:, order]`` for a permutation; unlike indexing, its gradient is a permutation too."""
    return _Permute.apply(x, order)


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return permute_channels(upstream, order.argsort()), None


class _Take(torch.autograd.Function):
    """``x[rows]``, each row at most once: backward has nothing to add up."""

    @staticmethod
    def forward(ctx, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.number = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        zeros = upstream.new_zeros(ctx.number, *upstream.shape[1:])
        return zeros.index_copy_(0, rows, upstream), None


def connection(gate: Tensor, assign: Tensor | None, out_channels: int) -> Tensor:
    """Spread the groups' gates over their filters: ``[B, G, C]`` -> ``[B, K, C]``.

    assign: as in :func:`grouped_conv2d`.
    """
    if assign is None:
        return gate.repeat_interleave(out_channels // gate.size(1), dim=1)
    if _is_float(assign):
        return assign.to(gate.dtype) @ gate
    return gate.index_select(1, assign)


def filter_means(values: Tensor, gate: Tensor, assign: Tensor | None) -> Tensor:
    """Sum the filters' ``[K]`` values by group and divide by K: ``[G]``; ones give sizes."""
    groups = gate.size(1)
    if assign is None:
        return values.view(groups, -1).sum(dim=1) / len(values)
    if _is_float(assign):
        return values @ assign.to(values.dtype) / len(values)
    return values.new_zeros(groups).index_add(0, assign, values) / len(values)


def _folding_pays(x: Tensor, weight: Tensor, groups: int, stride: int | tuple[int, int]) -> bool:
    # Elements that each form writes for a sample: K*C*kh*kw weights or G*C*H*W features. A weight
    # of its own for each sample costs several times as much, in its gradient and its layout; so do
    # features of which a strided convolution makes little.
    filters, _, kh, kw = weight.shape
    if x.size(0) == 0:  # no sample to fold weights for
        return False
    steps = math.prod(_pair(stride))
    return _WEIGHT_COST * filters * kh * kw <= groups * x.size(2) * x.size(3) * steps


def _folded(
    x: Tensor, weight: Tensor, connections: Tensor, bias: Tensor | None, geometry
) -> Tensor:
    batch, (filters, channels, kh, kw) = x.size(0), weight.shape
    own = _scale(weight, connections).reshape(batch * filters, channels, kh, kw)
    x = x.reshape(1, batch * channels, *x.shape[2:])
    bias = None if bias is None else bias.repeat(batch)
    y = F.conv2d(x, own, bias, *geometry, groups=batch)  # [1, B*K, H', W']
    return y.view(batch, filters, *y.shape[2:])


def _equal_heads(x: Tensor, weight: Tensor, gate: Tensor, bias: Tensor | None, geometry) -> Tensor:
    if torch.is_grad_enabled() and not isinstance(geometry[1], str):
        return convolve_features(x, weight, gate.to(x.dtype), bias, geometry)
    return F.conv2d(gated(x, gate), weight, bias, *geometry, groups=gate.size(1))


def _count_filters(assign: Tensor, groups: int) -> tuple[int, ...]:
    numbers = torch.arange(groups, device=assign.device)
    sizes = tuple((assign == numbers[:, None]).sum(dim=1).tolist())
    if sum(sizes) != len(assign):
        raise ValueError(
            f'assign has values {int(assign.min())} ... {int(assign.max())}, '
            f'expected 0 ... {groups - 1}'
        )
    return sizes


def _groups_in_any_order(
    x: Tensor,
    weight: Tensor,
    gate: Tensor,
    assign: Tensor,
    bias: Tensor | None,
    geometry,
    sizes: tuple[int, ...],
) -> Tensor:
    order = assign.argsort(stable=True)
    sorted_weight = weight.index_select(0, order)
    sorted_bias = None if bias is None else bias.index_select(0, order)
    if len(set(sizes)) == 1:
        y = _equal_heads(x, sorted_weight, gate, sorted_bias, geometry)
    else:
        gate = gate.to(x.dtype)[..., None, None]  # [B, G, C, 1, 1]
        weights = sorted_weight.split(sizes)
        biases = [None] * len(sizes) if bias is None else sorted_bias.split(sizes)
        y = torch.cat(
            [
                F.conv2d(x * gate[:, g], weights[g], biases[g], *geometry)
                for g in range(len(sizes))
                if sizes[g]
            ],
            dim=1,
        )
    return y.index_select(1, order.argsort())


def _scale(weight: Tensor, connections: Tensor) -> Tensor:
    return weight * connections.to(weight.dtype)[..., None, None]


def _is_float(assign: Tensor | None) -> bool:
    return assign is not None and assign.is_floating_point()


def _check(x: Tensor, weight: Tensor, gate: Tensor, assign: Tensor | None) -> None:
    filters, channels = weight.shape[:2]
    if x.dim() != 4 or x.size(1) != channels:
        raise ValueError(f'x has shape {tuple(x.shape)}, expected [B, {channels}, H, W]')
    if gate.dim() != 3 or gate.size(0) not in (1, x.size(0)) or gate.size(2) != channels:
        raise ValueError(
            f'gate has shape {tuple(gate.shape)}, expected [{x.size(0)} or 1, groups, {channels}]'
        )
    groups = gate.size(1)
    if assign is None:
        if groups == 0 or filters % groups:
            raise ValueError(f'heads={groups} does not divide out_channels={filters}')
        return
    integers = assign.dtype == torch.int64 and tuple(assign.shape) == (filters,)
    one_hot = assign.is_floating_point() and tuple(assign.shape) == (filters, groups)
    if not integers and not one_hot:
        raise ValueError(
            f'assign is {assign.dtype} of shape {tuple(assign.shape)}, '
            f'expected int64 [{filters}] or float [{filters}, {groups}]'
        )
