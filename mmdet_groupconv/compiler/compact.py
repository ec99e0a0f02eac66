"""A network that does only the gated work, from one that was trained."""

import copy
import warnings
from collections.abc import Iterable

import torch
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
from ..layers import GateNet, GroupedLayer, SeparableConv2d
from .blocks import (
    CompactBlock,
    CompactBranch,
    compact_conv_module,
    compact_inverted_residual,
    compact_linear,
    compact_residual,
)
from .chain import Chain
from .folding import StaysEagerError, units_of
from .freezing import freeze_gates, freeze_held_gates
from .fused import NONE, activation_of, computes_in
from .group_norm import compact_norm
from .memory import MapMemory
from .precision import PRECISIONS, to_bf16
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


def compact(
    model: nn.Module,
    freeze: Iterable | None = None,
    keep: float = 0.5,
    precision: str = 'fp32',
) -> nn.Module:
    """The same outputs as ``model.eval()``, to about 1e-5, with the gated work alone.

    model: a backbone or a whole detector; it is left as it is. The result is for inference. Blocks
    of ResNet and MobileNetV2 that are not grouped get faster, too: norms are folded, activations
    fused, maps are channels-last.

    freeze: calibration batches. With them, gates by image become fixed ones, and outputs change:
    see :func:`~mmdet_groupconv.compiler.freezing.freeze_gates`, also for `keep` and errors.

    precision: 'fp32', or 'bf16' for maps and weights in bfloat16, which CPUs that compute in it do
    about twice as fast (on others a warning says that it isn't faster); gates are decided in
    float32, and heads return that.

    Which exact form each layer takes is timed when a size of map is seen first. Raises ValueError
    for another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision={precision!r}, expected one of {", ".join(PRECISIONS)}')
    on_cpu = all(parameter.device.type == 'cpu' for parameter in model.parameters())
    if precision == 'bf16' and on_cpu and not computes_in(torch.bfloat16):
        warnings.warn('this CPU has no bf16: the network runs, but not faster', stacklevel=2)
    model = copy.deepcopy(model).requires_grad_(False)
    model.eval()
    if freeze is not None:
        freeze_gates(model, freeze, keep)
    freeze_held_gates(model)
    compiler, memory = _Compiler(), MapMemory()
    model = compiler.compile(model, '', owns_input=False)
    for module in model.modules():
        if isinstance(module, Unit):
            module.memory = memory
    model.stays_eager = compiler.stays_eager
    if precision == 'bf16':
        to_bf16(model)
    return model


class _Compiler:
    """Replaces the modules of a network, from the outside to the inside.

    stays_eager: for modules that have no compact form, why; by name. Parts of them may have one.
    """

    def __init__(self) -> None:
        self.stays_eager: dict[str, str] = {}
        self._done: dict[nn.Module, nn.Module] = {}

    def compile(self, module: nn.Module, name: str, owns_input: bool) -> nn.Module:
        """What takes the place of a module.

        owns_input: whether nobody else reads its input.
        """
        if isinstance(module, (CompactBranch, CompactStem)):
            return module
        if module in self._done:  # a layer that is shared stays shared
            new = self._done[module]
            if isinstance(new, CompactBlock):
                new.owns_input &= owns_input
            return new
        try:
            new = _replacement(module, owns_input)
        except StaysEagerError as reason:
            self.stays_eager[name] = str(reason)
            new = None
        if new is not None:
            self._done[module] = new
            if getattr(new, 'downsample', None) is not None:
                below = f'{name}.downsample' if name else 'downsample'
                new.downsample = self.compile(new.downsample, below, owns_input=False)
            return new
        self._done[module] = module
        if not isinstance(module, GroupedLayer | GateNet):  # what is in there is theirs
            self._compile_children(module, name)
        return module

    def _compile_children(self, module: nn.Module, name: str) -> None:
        in_sequence = _is_sequence(module)
        if in_sequence:
            _fuse_neighbours(module)
        if isinstance(module, ResNet) and not module.deep_stem:
            _fuse_stem(module)
        previous = None
        for key, child in list(module._modules.items()):
            if child is not None:
                # What a block returns, and nobody but the next block of the sequence gets.
                owned = in_sequence and isinstance(previous, CompactBlock)
                previous = self.compile(child, f'{name}.{key}' if name else key, owned)
                setattr(module, key, previous)


def _replacement(module: nn.Module, owns_input: bool) -> nn.Module | None:
    """The compact form, None for what has parts alone. Raises StaysEagerError."""
    if type(module) in _RESIDUALS:
        return compact_residual(module, owns_input)
    if type(module) in _INVERTED_RESIDUALS:
        return compact_inverted_residual(module, owns_input)
    if type(module) is ConvModule:
        return compact_conv_module(module)
    if type(module) is nn.GroupNorm:
        return compact_norm(module)
    if type(module) is RoIAlign and module.pool_mode == 'avg':
        return CompactRoIAlign(module)
    if isinstance(module, GroupedLayer) and not isinstance(module, nn.Conv2d):
        return compact_linear(module)
    if isinstance(module, nn.Conv2d | SeparableConv2d):
        return CompactBranch(Chain(units_of(module)))
    return None


def _is_sequence(module: nn.Module) -> bool:
    # Others may look at what is in between.
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _fuse_neighbours(sequence: nn.Sequential) -> None:
    """Make one of a convolution and the norm and the activation that follow it."""
    names = [*sequence._modules, None, None]
    for conv, norm, act in zip(names, names[1:], names[2:], strict=False):
        if norm is None or isinstance(sequence._modules[norm], nn.Identity):
            continue
        activation = None if act is None else activation_of(sequence._modules[act])
        try:
            units = units_of(sequence._modules[conv], sequence._modules[norm], activation or NONE)
        except StaysEagerError:
            continue
        sequence._modules[conv] = CompactBranch(Chain(units))
        sequence._modules[norm] = nn.Identity()
        if activation is not None:
            sequence._modules[act] = nn.Identity()


def _fuse_stem(backbone: ResNet) -> None:
    activation = activation_of(backbone.relu)
    try:
        units = units_of(backbone.conv1, backbone.norm1, activation or NONE)
    except StaysEagerError:
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
