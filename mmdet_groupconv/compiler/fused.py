"""A convolution with the sum and the activation that follow it, in one pass over memory.

On CPUs these are oneDNN's fused calls, which PyTorch's own compiler uses too. PyTorch keeps them
private, so they are looked up when this module is loaded; elsewhere plain operations do the same.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .memory import MapMemory


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


def _unchanged(x: Tensor) -> Tensor:
    return x


def _clamp(x: Tensor) -> Tensor:
    return x.clamp_(0, 6)


NONE = Activation('none', (), _unchanged)
RELU = Activation('relu', (), torch.relu_)
RELU6 = Activation('hardtanh', (0.0, 6.0), _clamp)


def activation_of(module: nn.Module | None) -> Activation | None:
    """The activation of a module, None where it has no fused form."""
    if module is None or isinstance(module, nn.Identity):
        return NONE
    return {nn.ReLU: RELU, nn.ReLU6: RELU6}.get(type(module))


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    activation: Activation,
    memory: MapMemory,
) -> Tensor:
    """``activation(conv(x))``; ``[B, C, H, W]`` channels-last -> ``[B, K, H', W']``."""
    if not has_fused_calls(x):
        return activation.plain(_plain(x, weight, bias, geometry))
    shape = output_shape(x, weight, geometry)
    # The fused calls write to memory of their own, unless they add.
    if memory.is_worth_filling(x, shape):
        out = memory.empty(x, shape).zero_()
        convolve_onto(out, x, weight, bias, geometry, activation)
        return out
    return _CONV(x, weight, bias, *_in_onednn_order(geometry), *activation[:2], '')


def packed(weight: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    """A weight that stays, as oneDNN wants it for maps like `x`: else every call makes that.

    For :func:`convolve` and :func:`convolve_onto`, where :func:`has_fused_calls` says so.
    """
    if _PACK is None or len(x) == 0:
        return weight
    padding, stride, dilation, groups = _in_onednn_order(geometry)
    return _PACK(weight, padding, stride, dilation, groups, list(x.shape))


def convolve_onto(
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    activation: Activation,
) -> None:
    """``out = activation(out + conv(x))``, in place."""
    # oneDNN crashes on other layouts.
    layout = torch.channels_last
    in_layout = all(y.is_contiguous(memory_format=layout) for y in (out, x))
    if not has_fused_calls(x) or not in_layout:
        weight = weight.to_dense() if weight.is_mkldnn else weight
        activation.plain(out.add_(_plain(x, weight, bias, geometry)))
        return
    fused = 'relu' if activation == RELU else None
    _CONV_ADD_(out, x, weight, bias, *_in_onednn_order(geometry), 'add', 1.0, fused, [], '')
    if fused is None:
        activation.plain(out)


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    if computes_in(x.dtype) or x.device.type != 'cpu':
        return F.conv2d(x, weight, bias, *geometry)
    # PyTorch's own takes ten times as long.
    bias = None if bias is None else bias.float()
    return F.conv2d(x.float(), weight.float(), bias, *geometry).to(x.dtype)


def output_shape(x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[int, int, int, int]:
    """``[B, K, H', W']`` of a convolution."""
    height, width = (
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, padding, dilation in zip(
            x.shape[2:], weight.shape[2:], *geometry[:3], strict=True
        )
    )
    return x.size(0), weight.size(0), height, width


def _find(name: str, overload: str) -> Callable | None:
    try:
        return getattr(getattr(torch.ops.mkldnn, name), overload)
    except AttributeError:
        return None


_CONV = _find('_convolution_pointwise', 'default')
_CONV_ADD_ = _find('_convolution_pointwise_', 'binary')
_PACK = _find('_reorder_convolution_weight', 'default')
_HAS_BF16 = _find('_is_mkldnn_bf16_supported', 'default')


def computes_in(dtype: torch.dtype) -> bool:
    """Whether this CPU convolves maps of that type, not only stores them."""
    return dtype is not torch.bfloat16 or (_HAS_BF16 is not None and _HAS_BF16())


def has_fused_calls(x: Tensor) -> bool:
    """Whether oneDNN's calls can be used on `x`."""
    return (
        x.device.type == 'cpu'
        and x.dtype in (torch.float32, torch.bfloat16)
        and computes_in(x.dtype)
        and None not in (_CONV, _CONV_ADD_)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.compiler.is_compiling()
    )


def _in_onednn_order(geometry: Geometry) -> tuple:
    stride, padding, dilation, groups = geometry
    return padding, stride, dilation, groups
