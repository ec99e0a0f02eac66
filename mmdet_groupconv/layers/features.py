"""Gated features: a copy of the input for each group, which backward makes again."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair


def gated(x: Tensor, gate: Tensor) -> Tensor:
    """``[B, C, H, W]`` and ``[B, G, C]`` -> ``[B, G*C, H, W]``."""
    return (x[:, None] * gate.to(x.dtype)[..., None, None]).flatten(1, 2)


def convolve_features(
    x: Tensor, weight: Tensor, gate: Tensor, bias: Tensor | None, geometry: tuple
) -> Tensor:
    """A convolution with equal groups of :func:`gated` features, which are not kept for backward.

    geometry: stride, padding in numbers, dilation. Differentiable once.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight, gate = x.to(dtype), weight.to(dtype), gate.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return _Features.apply(x, weight, gate, bias, *map(_pair, geometry))


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, gate, bias, stride, padding, dilation):
        ctx.save_for_backward(x, weight, gate)
        ctx.geometry = stride, padding, dilation
        ctx.bias_size = None if bias is None else [len(bias)]
        return F.conv2d(gated(x, gate), weight, bias, *ctx.geometry, groups=gate.size(1))

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        x, weight, gate = ctx.saved_tensors
        for_x, for_weight, for_gate, for_bias, *_ = ctx.needs_input_grad
        read, weight_grad, bias_grad = torch.ops.aten.convolution_backward(
            upstream,
            gated(x, gate),
            weight,
            ctx.bias_size,
            *ctx.geometry,
            False,  # not transposed
            (0, 0),
            gate.size(1),
            (for_x or for_gate, for_weight, for_bias),
        )
        x_grad = gate_grad = None
        if for_x or for_gate:
            read = read.unflatten(1, gate.shape[1:])  # [B, G, C, H, W]
        if for_x:
            x_grad = (read * gate[..., None, None]).sum(dim=1)
        if for_gate:
            gate_grad = (read * x[:, None]).sum(dim=(3, 4))
        return x_grad, weight_grad, gate_grad, bias_grad, None, None, None
