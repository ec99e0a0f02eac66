"""What PyTorch's ONNX exporter can't do by itself."""

import torch
import torch.nn.functional as F
from torch import Tensor


class _Conv2d(torch.autograd.Function):
    # The exporter wants to know the kernel's size, and loses it where the graph picks filters.

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, geometry: tuple) -> Tensor:
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def symbolic(g, x, weight, bias, geometry: tuple):
        stride, padding, dilation, groups = geometry
        settings = dict(strides_i=stride, pads_i=padding * 2, dilations_i=dilation, group_i=groups)
        return g.op('Conv', x, weight, bias, **settings)


def conv2d_for_onnx(x: Tensor, weight: Tensor, bias: Tensor, geometry: tuple) -> Tensor:
    """A convolution whose weight the graph may compute."""
    return _Conv2d.apply(x, weight, bias, geometry)
