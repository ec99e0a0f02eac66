"""Residual blocks and convolution modules as chains."""

from collections.abc import Callable, Sequence

from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.layers import InvertedResidual
from torch import Tensor, nn

from ..backbones.msgc_mobilenet_v2 import MSGCInvertedResidual
from ..backbones.msgc_resnet import MSGCBasicBlock, MSGCBottleneck
from ..layers import Gate, GateNets, GroupedLayer, SGCLinear, make_gate
from .chain import Chain
from .folding import StaysEagerError, units_of
from .fused import NONE, RELU, Geometry, activation_of
from .group_norm import compact_norm
from .maps import GlobalMean
from .static import StaticConv
from .unit import Unit

# They gate their convolutions by their own input.
GATED_BLOCKS = MSGCBasicBlock, MSGCBottleneck, MSGCInvertedResidual


class CompactBlock(nn.Module):
    """A chain whose outputs are added onto a shortcut.

    downsample: of the shortcut, None for the input itself. gates: what makes the chain's from its
    input, if they come from there. owns_input: whether nobody else reads the input, which then
    turns into the output: the largest maps of a network are not allocated again and again.
    """

    def __init__(
        self,
        chain: Chain,
        downsample: nn.Module | None,
        gates: 'HostGates | None',
        owns_input: bool,
    ) -> None:
        super().__init__()
        self.chain, self.downsample, self.gates = chain, downsample, gates
        self.owns_input = owns_input

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, C, H, W]``. Returns ``[B, K, H', W']``."""
        x = self.chain.entry(x)
        gates = None if self.gates is None else self.gates(x)
        return self.chain(x, gates, self._start(x))

    def _start(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            return self.downsample(x)
        return x if self.owns_input else x.clone()


class CompactBranch(nn.Module):
    """The same without a shortcut. Arguments: see :class:`CompactBlock`."""

    def __init__(self, chain: Chain, gates: 'HostGates | None' = None) -> None:
        super().__init__()
        self.chain, self.gates = chain, gates

    def forward(self, x: Tensor, gate: Gate | None = None) -> Tensor:
        """x: ``[B, C, H, W]``. Returns ``[B, K, H', W']``.

        gate: that an eager host may still give to a layer of frozen gates; not looked at.
        """
        return self.chain(x, None if self.gates is None else self.gates(x))


class HostGates(nn.Module):
    """The nets by which a block gates its convolutions, without the block.

    nets: of each convolution, None for those without gates.
    """

    def __init__(self, nets: Sequence[GateNets | None]) -> None:
        super().__init__()
        self.pooling = GlobalMean()
        self.nets = nn.ModuleList(
            nn.ModuleList(net for net in pair or () if net is not None) for pair in nets
        )

    def forward(self, x: Tensor) -> list[Gate | None]:
        """One a convolution. x: the block's input, ``[B, C, H, W]``."""
        pooled = self.pooling(x)
        return [make_gate((*nets, None)[:2], pooled) if len(nets) else None for nets in self.nets]


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


def compact_linear(layer: GroupedLayer) -> CompactLinear:
    """The compact form of a grouped fully connected layer. Raises StaysEagerError."""
    if not isinstance(layer, SGCLinear) or type(layer).forward is not SGCLinear.forward:
        raise StaysEagerError(f'{type(layer).__name__} is not known')
    weight = layer.weight.detach()[..., None, None]
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    geometry = Geometry((1, 1), (0, 0), (1, 1))
    return CompactLinear(Chain([StaticConv(weight, bias, geometry, NONE, layer.mask)]))


def compact_residual(block: BasicBlock | Bottleneck, owns_input: bool) -> CompactBlock:
    """The compact form of a ResNet block. Raises StaysEagerError."""
    numbers = ('1', '2', '3') if isinstance(block, Bottleneck) else ('1', '2')
    if getattr(block, 'with_plugins', False):
        raise StaysEagerError('it has plugins')
    nets = _gate_nets(block, len(numbers))
    units = []
    for number, own in zip(numbers, nets, strict=True):
        conv, norm = getattr(block, f'conv{number}'), getattr(block, f'norm{number}')
        units += _named(f'conv{number}', units_of, conv, norm, RELU, _heads(own))
    if block.downsample is None and block.conv1.stride not in (1, (1, 1)):
        raise StaysEagerError(f'it has stride {block.conv1.stride} and no shortcut convolution')
    return CompactBlock(Chain(units), block.downsample, _host_gates(nets, units), owns_input)


def compact_inverted_residual(block: InvertedResidual, owns_input: bool) -> nn.Module:
    """The compact form of a MobileNetV2 block. Raises StaysEagerError."""
    names = ['depthwise_conv', 'linear_conv']
    if block.with_expand_conv:
        names.insert(0, 'expand_conv')
    if block.with_se:
        raise StaysEagerError('it has squeeze and excitation')
    nets = _gate_nets(block, len(names))
    units = []
    for name, own in zip(names, nets, strict=True):
        units += _named(name, module_units, getattr(block, name), _heads(own))
    chain, gates = Chain(units), _host_gates(nets, units)
    if block.with_res_shortcut:
        return CompactBlock(chain, None, gates, owns_input)
    return CompactBranch(chain, gates)


def compact_conv_module(module: ConvModule) -> nn.Module:
    """The compact form of a convolution with its norm and activation. Raises StaysEagerError."""
    try:
        return CompactBranch(Chain(module_units(module)))
    except StaysEagerError:
        if module.order != ('conv', 'norm', 'act') or module.with_spectral_norm:
            raise
        if module.with_explicit_padding:
            raise
    # What can't be folded in runs after it.
    conv = CompactBranch(Chain(units_of(module.conv)))
    after = [compact_norm(module.norm)] if module.with_norm else []
    after += [module.activate] if module.with_activation else []
    return nn.Sequential(conv, *after)


def module_units(module: ConvModule, heads: int | None = None) -> list[Unit]:
    """The units of an ``mmcv`` ConvModule. heads: see :func:`units_of`. Raises StaysEagerError."""
    if module.order != ('conv', 'norm', 'act') or module.with_spectral_norm:
        raise StaysEagerError(f'its order is {module.order}, or its weight is normalised')
    activation = activation_of(module.activate if module.with_activation else None)
    if activation is None:
        raise StaysEagerError(f'{type(module.activate).__name__} has no fused form')
    if module.with_explicit_padding:
        raise StaysEagerError('it pads by itself')
    return units_of(module.conv, module.norm if module.with_norm else None, activation, heads)


def _gate_nets(block: nn.Module, number: int) -> list[GateNets | None]:
    return block.gate_nets() if isinstance(block, GATED_BLOCKS) else [None] * number


def _heads(nets: GateNets | None) -> int | None:
    return None if nets is None else nets[0].heads


def _host_gates(nets: list[GateNets | None], units: list[Unit]) -> HostGates | None:
    gated = any(nets) and any(unit.per_image for unit in units)
    return HostGates(nets) if gated else None


def _named(name: str, units: Callable[..., list[Unit]], *args) -> list[Unit]:
    try:
        found = units(*args)
    except StaysEagerError as reason:
        raise StaysEagerError(f'{name}: {reason}') from None
    for unit in found:
        unit.name = name
    return found
