"""A convolution with the sum and the activation that follow it, in one pass over memory.

On CPUs these are oneDNN's fused calls, which PyTorch's own compiler uses too. PyTorch keeps them
private, so they are looked up when this module is loaded; elsewhere plain operations do the same.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Geometry(NamedTuple):
    """How a convolution moves over the map; fields as ``nn.Conv2d``'s, in pairs."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int = 1


class Activation(NamedTuple):
    """name, scalars: what oneDNN calls it. plain: the same, in place."""

    name: str
    scalars: tuple[float, ...]
    plain: Callable[[Tensor], Tensor]


NONE = Activation('none', (), lambda x: x)
RELU = Activation('relu', (), torch.relu_)
RELU6 = Activation('hardtanh', (0.0, 6.0), lambda x: x.clamp_(0, 6))


def activation_of(module: nn.Module | None) -> Activation | None:
    """The activation of a module, None where it has no fused form."""
    if module is None or isinstance(module, nn.Identity):
        return NONE
    return {nn.ReLU: RELU, nn.ReLU6: RELU6}.get(type(module))


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, activation: Activation
) -> Tensor:
    """``activation(conv(x))``; ``[B, C, H, W]`` channels-last -> ``[B, K, H', W']``."""
    if not _has_fused_calls(x):
        y = F.conv2d(x, weight, bias, *geometry)
        return activation.plain(y)
    return _CONV(x, weight, bias, *_in_onednn_order(geometry), *activation[:2], '')


def convolve_onto(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    activation: Activation,
) -> None:
    """``out = activation(out + conv(x))``, in place: large maps are costly to allocate."""
    if not _has_fused_calls(x) or activation not in (NONE, RELU):
        activation.plain(out.add_(F.conv2d(x, weight, bias, *geometry)))
        return
    name = None if activation is NONE else activation.name
    _CONV_ADD_(
        out, x, weight, bias, *_in_onednn_order(geometry), 'add', 1.0, name, activation.scalars, ''
    )


def _find(name: str, overload: str) -> Callable | None:
    try:
        return getattr(getattr(torch.ops.mkldnn, name), overload)
    except AttributeError:
        return None


_CONV = _find('_convolution_pointwise', 'default')
_CONV_ADD_ = _find('_convolution_pointwise_', 'binary')


def _has_fused_calls(x: Tensor) -> bool:
    return (
        x.device.type == 'cpu'
        and x.dtype is torch.float32
        and None not in (_CONV, _CONV_ADD_)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.onnx.is_in_onnx_export()
        and not torch.compiler.is_compiling()
    )


def _in_onednn_order(geometry: Geometry) -> tuple:
    stride, padding, dilation, groups = geometry
    return padding, stride, dilation, groups
