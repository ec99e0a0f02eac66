"""Residual blocks and convolution modules as chains."""

import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.layers import InvertedResidual
from torch import Tensor, nn

from ..layers import GroupedConv2d, SelfGatedConv2d, SGCLinear
from .chain import Chain
from .folding import can_fold, units_of
from .fused import NONE, RELU, Geometry, activation_of
from .group_norm import compact_norm
from .static import StaticConv
from .unit import Unit


class CompactBlock(nn.Module):
    """A chain whose outputs are added onto a shortcut.

    shortcut: None for the input itself. gates_of: the block that makes the chain's gates from its
    input, if it does. owns_input: whether nobody else reads the input, which then turns into the
    output: the largest maps of a network are not allocated again and again.
    """

    def __init__(
        self, chain: Chain, shortcut: nn.Module | None, gates_of: nn.Module | None, owns_input: bool
    ) -> None:
        super().__init__()
        self.chain, self.shortcut, self.gates_of = chain, shortcut, gates_of
        self.owns_input = owns_input

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, C, H, W]``. Returns ``[B, K, H', W']``."""
        x = x.contiguous(memory_format=torch.channels_last)
        gates = None if self.gates_of is None else self.gates_of.gates(x)
        return self.chain(x, gates, self._start(x))

    def _start(self, x: Tensor) -> Tensor:
        if self.shortcut is not None:
            return self.shortcut(x)
        return x if self.owns_input else x.clone()


class CompactBranch(nn.Module):
    """The same without a shortcut. Arguments: see :class:`CompactBlock`."""

    def __init__(self, chain: Chain, gates_of: nn.Module | None = None) -> None:
        super().__init__()
        self.chain, self.gates_of = chain, gates_of

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, C, H, W]``. Returns ``[B, K, H', W']``."""
        return self.chain(x, None if self.gates_of is None else self.gates_of.gates(x))


class CompactLinear(nn.Module):
    """A fully connected layer as a 1x1 convolution of a map whose pixels are its rows."""

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C]`` -> ``[N, K]``."""
        if len(x) == 0:
            return x.new_zeros(0, self.chain.units[-1].out_channels)
        rows = x.contiguous().view(1, len(x), 1, -1).permute(0, 3, 1, 2)
        return self.chain(rows).permute(0, 2, 3, 1).reshape(len(x), -1)


def compact_linear(layer: SGCLinear) -> CompactLinear:
    """The compact form of a grouped fully connected layer."""
    weight = layer.weight.detach()[..., None, None]
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    geometry = Geometry((1, 1), (0, 0), (1, 1))
    return CompactLinear(Chain([StaticConv(weight, bias, geometry, NONE, layer.mask)]))


def compact_residual(block: BasicBlock | Bottleneck, owns_input: bool) -> nn.Module | None:
    """The compact form of a ResNet block, None where it has none: plugins, other convolutions."""
    numbers = ('1', '2', '3') if isinstance(block, Bottleneck) else ('1', '2')
    if getattr(block, 'with_plugins', False):
        return None
    units = []
    for number in numbers:
        conv, norm = getattr(block, f'conv{number}'), getattr(block, f'norm{number}')
        found = units_of(conv, norm, RELU, _heads(block, conv, f'maskgen{number}'))
        if found is None:
            return None
        units += found
    shortcut = block.downsample
    if shortcut is None and block.conv1.stride not in (1, (1, 1)):
        return None
    return CompactBlock(Chain(units), shortcut, _gates_of(block, units), owns_input)


def compact_inverted_residual(block: InvertedResidual, owns_input: bool) -> nn.Module | None:
    """The compact form of a MobileNetV2 block, None where it has none: squeeze and excitation."""
    modules = [block.depthwise_conv, block.linear_conv]
    if block.with_expand_conv:
        modules.insert(0, block.expand_conv)
    if block.with_se:
        return None
    units = []
    for module in modules:
        found = module_units(module, _heads(block, module.conv, 'maskgen'))
        if found is None:
            return None
        units += found
    chain, gates_of = Chain(units), _gates_of(block, units)
    if block.with_res_shortcut:
        return CompactBlock(chain, None, gates_of, owns_input)
    return CompactBranch(chain, gates_of)


def compact_conv_module(module: ConvModule) -> nn.Module | None:
    """The compact form of a convolution with its norm and activation, None where it has none."""
    units = module_units(module)
    if units is not None:
        return CompactBranch(Chain(units))
    if module.order != ('conv', 'norm', 'act') or module.with_spectral_norm:
        return None
    # What can't be folded in runs after it.
    units = None if module.with_explicit_padding else units_of(module.conv)
    if units is None:
        return None
    after = [compact_norm(module.norm)] if module.with_norm else []
    after += [module.activate] if module.with_activation else []
    return nn.Sequential(CompactBranch(Chain(units)), *after)


def module_units(module: ConvModule, heads: int | None = None) -> list | None:
    """The units of an ``mmcv`` ConvModule, None where its parts can't become one."""
    if module.order != ('conv', 'norm', 'act') or module.with_spectral_norm:
        return None
    activation = activation_of(module.activate if module.with_activation else None)
    norm = module.norm if module.with_norm else None
    if module.with_explicit_padding or activation is None or not can_fold(norm):
        return None
    return units_of(module.conv, norm, activation, heads)


def _heads(block: nn.Module, conv: nn.Module, generator: str) -> int | None:
    if isinstance(conv, GroupedConv2d) and not isinstance(conv, SelfGatedConv2d):
        return getattr(block, generator).heads
    return None


def _gates_of(block: nn.Module, units: list[Unit]) -> nn.Module | None:
    """The block without its convolutions, if it makes gates for one of the units."""
    if not hasattr(block, 'gates') or not any(unit.per_image for unit in units):
        return None
    for name, _ in list(block.named_children()):
        if not name.startswith(('maskgen', 'attgen', 'gate_pool')):
            delattr(block, name)
    return block
