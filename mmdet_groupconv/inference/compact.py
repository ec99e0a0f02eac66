"""A network that does only the gated work, from one that was trained."""

import copy
from collections.abc import Iterable

from mmcv.cnn import ConvModule
from mmcv.ops import RoIAlign
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from mmdet.models.backbones.resnext import Bottleneck as ResNeXtBottleneck
from mmdet.models.layers import InvertedResidual
from torch import nn

from ..backbones.grouped_blocks import (
    GroupedBasicBlock,
    GroupedBottleneck,
    GroupedInvertedResidual,
)
from ..backbones.msgc_mobilenet_v2 import MSGCInvertedResidual
from ..backbones.msgc_resnet import MSGCBasicBlock, MSGCBottleneck
from ..layers import GatePool, SGCLinear
from .blocks import (
    CompactBlock,
    CompactBranch,
    compact_conv_module,
    compact_inverted_residual,
    compact_linear,
    compact_residual,
)
from .chain import Chain
from .folding import can_fold, units_of
from .freezing import freeze_gates
from .fused import NONE, activation_of
from .group_norm import compact_norm
from .maps import MatrixPool
from .pool import MapPool
from .roi_align import CompactRoIAlign
from .static import StaticConv
from .stem import CompactStem
from .unit import Unit

# By exact type: a subclass may well compute something else.
_RESIDUALS = (
    BasicBlock,
    Bottleneck,
    ResNeXtBottleneck,
    GroupedBasicBlock,
    GroupedBottleneck,
    MSGCBasicBlock,
    MSGCBottleneck,
)
_INVERTED_RESIDUALS = InvertedResidual, GroupedInvertedResidual, MSGCInvertedResidual


def compact(model: nn.Module, freeze: Iterable | None = None, keep: float = 0.5) -> nn.Module:
    """The same outputs as ``model.eval()``, to about 1e-5, with the gated work alone.

    model: a backbone or a whole detector; it is left as it is. The result is for inference. Blocks
    of ResNet and MobileNetV2 that are not grouped get faster, too: norms are folded, activations
    fused, maps are channels-last.

    freeze: calibration batches. With them, gates by image become fixed ones, and outputs change:
    see :func:`~mmdet_groupconv.inference.freezing.freeze_gates`, also for `keep` and errors.

    Which exact form each layer takes is timed when a size of map is seen first.
    """
    model = copy.deepcopy(model).requires_grad_(False)
    model.eval()
    if freeze is not None:
        freeze_gates(model, freeze, keep)
    model, pool = _compact(model, {}, owns_input=False), MapPool()
    for module in model.modules():
        if isinstance(module, Unit):
            module.pool = pool
        if isinstance(getattr(module, 'gate_pool', None), GatePool):
            module.gate_pool = MatrixPool()
    return model


def _compact(module: nn.Module, done: dict[nn.Module, nn.Module], owns_input: bool) -> nn.Module:
    if isinstance(module, (CompactBranch, CompactStem)):
        return module
    if module in done:  # a layer that is shared stays shared
        new = done[module]
        if isinstance(new, CompactBlock):
            new.owns_input &= owns_input
        return new
    new = _replacement(module, owns_input)
    if isinstance(new, nn.Module) and new is not module:
        done[module] = new
        if getattr(new, 'shortcut', None) is not None:
            new.shortcut = _compact(new.shortcut, done, owns_input=False)
        return new
    done[module] = module
    in_sequence = _is_sequence(module)
    if in_sequence:
        _fuse_neighbours(module)
    if isinstance(module, ResNet) and not module.deep_stem:
        _fuse_stem(module)
    previous = None
    for name, child in list(module._modules.items()):
        if child is not None:
            # What a block returns, and nobody but the next block of the sequence gets.
            owned = in_sequence and isinstance(previous, CompactBlock)
            previous = _compact(child, done, owned)
            setattr(module, name, previous)
    return module


def _replacement(module: nn.Module, owns_input: bool) -> nn.Module | None:
    if type(module) in _RESIDUALS:
        return compact_residual(module, owns_input)
    if type(module) in _INVERTED_RESIDUALS:
        return compact_inverted_residual(module, owns_input)
    if type(module) is ConvModule:
        return compact_conv_module(module)
    if isinstance(module, SGCLinear):
        return compact_linear(module)
    if type(module) is nn.GroupNorm:
        return compact_norm(module)
    if type(module) is RoIAlign and module.pool_mode == 'avg':
        return CompactRoIAlign(module)
    units = units_of(module)
    return None if units is None else CompactBranch(Chain(units))


def _is_sequence(module: nn.Module) -> bool:
    # Others may look at what is in between.
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _fuse_neighbours(sequence: nn.Sequential) -> None:
    """Make one of a convolution and the norm and the activation that follow it."""
    names = [*sequence._modules, None, None]
    for conv, norm, act in zip(names, names[1:], names[2:], strict=False):
        if norm is None or isinstance(sequence._modules[norm], nn.Identity):
            continue
        if not can_fold(sequence._modules[norm]):
            continue
        activation = None if act is None else activation_of(sequence._modules[act])
        units = units_of(sequence._modules[conv], sequence._modules[norm], activation or NONE)
        if units is None:
            continue
        sequence._modules[conv] = CompactBranch(Chain(units))
        sequence._modules[norm] = nn.Identity()
        if activation is not None:
            sequence._modules[act] = nn.Identity()


def _fuse_stem(backbone: ResNet) -> None:
    activation = activation_of(backbone.relu)
    units = units_of(backbone.conv1, backbone.norm1, activation or NONE)
    if units is None:
        return
    setattr(backbone, backbone.norm1_name, nn.Identity())
    if activation is not None:
        backbone.relu = nn.Identity()
    pooled = isinstance(backbone.maxpool, nn.MaxPool2d)  # not so for small images
    if activation is None or not pooled or [type(unit) for unit in units] != [StaticConv]:
        backbone.conv1 = CompactBranch(Chain(units))
        return
    backbone.maxpool = nn.Identity()
    backbone.conv1 = CompactStem(*units)
