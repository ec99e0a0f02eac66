"""Compact networks in bfloat16: their maps and weights, not what decides gates."""

from collections.abc import Iterator

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..layers import GateNet, GroupedLayer
from .blocks import HostGates
from .chain import Chain
from .group_norm import CompactGroupNorm
from .stem import CompactStem
from .unit import Unit

PRECISIONS = 'fp32', 'bf16'
_HEADS = BaseDenseHead, BBoxHead


def to_bf16(model: nn.Module) -> None:
    """Turn a compact network, in place, into one that computes in bfloat16.

    Layers without a compact form stay in float32, and so do what heads and the network return:
    boxes are decoded from that.
    """
    for module in model.modules():
        if isinstance(module, Unit):
            floats = {k: b for k, b in module._buffers.items() if _is_float(b)}
            for name, buffer in floats.items():
                setattr(module, name, buffer.bfloat16())
        if isinstance(module, Chain | CompactStem):
            module.dtype = torch.bfloat16
    for module in _others(model):
        module.register_forward_pre_hook(lambda _, args: _to(torch.float32, args))
        module.register_forward_hook(lambda _, args, y: _to(torch.bfloat16, y))
    for module in model.modules():
        if module is model or isinstance(module, _HEADS):
            module.register_forward_hook(lambda _, args, y: _to(torch.float32, y))


def _others(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that compute with parameters of their own."""
    if isinstance(module, Chain | CompactStem | HostGates):
        return
    own = GroupedLayer | GateNet | CompactGroupNorm
    if isinstance(module, own) or module._parameters:
        yield module
        return
    for child in module.children():
        yield from _others(child)


def _is_float(x: Tensor | None) -> bool:
    return x is not None and x.is_floating_point()


def _to(dtype: torch.dtype, values: object) -> object:
    return tree_map_only(Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, values)
