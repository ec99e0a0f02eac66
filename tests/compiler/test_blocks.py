"""Blocks compute what they did, and those without a compact form are left alone."""

import copy
import itertools

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.backbones.resnext import Bottleneck as ResNeXtBottleneck
from mmdet.models.layers import InvertedResidual
from torch import nn

from mmdet_groupconv.backbones.grouped_blocks import (
    GroupedBasicBlock,
    GroupedBottleneck,
    GroupedInvertedResidual,
)
from mmdet_groupconv.backbones.msgc_mobilenet_v2 import MSGCInvertedResidual
from mmdet_groupconv.backbones.msgc_resnet import MSGCBasicBlock, MSGCBottleneck
from mmdet_groupconv.compiler.blocks import (
    CompactBlock,
    CompactBranch,
    CompactLinear,
    compact_conv_module,
    compact_inverted_residual,
    compact_linear,
    compact_residual,
)
from mmdet_groupconv.compiler.folding import StaysEagerError
from mmdet_groupconv.layers import AttentionGenerator, MaskGenerator, SGCLinear

CLOSE = dict(rtol=1e-9, atol=1e-9)
MSGC = dict(heads=4, attention=True)


def shortcut(channels, filters, stride):
    conv = nn.Conv2d(channels, filters, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(filters))


def grouped(layer, **arguments):
    return dict(grouped=dict(type=layer, **arguments))


def residual(kind, stride=1, planes=8, **kwargs):
    expansion = kind.expansion
    channels = planes * expansion
    downsample = shortcut(channels, channels, stride) if stride > 1 else None
    return kind(channels, planes, stride=stride, downsample=downsample, **kwargs)


RESIDUALS = {
    'basic': lambda **kw: residual(BasicBlock, **kw),
    'bottleneck': lambda **kw: residual(Bottleneck, **kw),
    'caffe': lambda **kw: residual(Bottleneck, style='caffe', **kw),
    'dilated': lambda **kw: residual(Bottleneck, dilation=2, **kw),
    'ResNeXt': lambda **kw: residual(ResNeXtBottleneck, groups=4, base_width=16, **kw),
    'MSGC basic': lambda **kw: residual(MSGCBasicBlock, **MSGC, **kw),
    'MSGC bottleneck': lambda **kw: residual(MSGCBottleneck, **MSGC, **kw),
    'DGC basic': lambda **kw: residual(GroupedBasicBlock, **grouped('DGCConv2d'), **kw),
    'DGC bottleneck': lambda **kw: residual(GroupedBottleneck, **grouped('DGCConv2d'), **kw),
    'FLGC basic': lambda **kw: residual(GroupedBasicBlock, **grouped('FLGCConv2d', groups=3), **kw),
    'SGC bottleneck': lambda **kw: residual(GroupedBottleneck, **grouped('SGCConv2d'), **kw),
}


def inverted(kind, channels=8, filters=8, stride=1, hidden=24, **kwargs):
    expand = dict(with_expand_conv=hidden != channels)
    kwargs = {'act_cfg': dict(type='ReLU6'), **kwargs}
    return kind(channels, filters, mid_channels=hidden, stride=stride, **expand, **kwargs)


INVERTED = {
    'plain': lambda **kw: inverted(InvertedResidual, **kw),
    'MSGC': lambda **kw: inverted(MSGCInvertedResidual, **MSGC, **kw),
    'DGC': lambda **kw: inverted(GroupedInvertedResidual, **grouped('DGCConv2d', heads=2), **kw),
    'FLGC': lambda **kw: inverted(GroupedInvertedResidual, **grouped('FLGCConv2d'), **kw),
    'SGC': lambda **kw: inverted(GroupedInvertedResidual, **grouped('SGCConv2d'), **kw),
}


@pytest.fixture
def settled(mix_gates):
    """A block with mixed gates in double precision, and an image's worth of input."""

    def make(block, channels):
        torch.manual_seed(0)
        mix_gates(block, torch.randn(4, channels, 8, 9))
        return block.double(), torch.randn(3, channels, 8, 9, dtype=torch.float64)

    return make


def assert_exact(compacted, block, x, take_form, case):
    """In each form."""
    expected = block(x)
    fast = compacted(copy.deepcopy(block), owns_input=False)
    for position in (0, 1, -1):
        found = take_form(fast, position)(x)
        torch.testing.assert_close(
            found, expected, **CLOSE, msg=lambda text, p=position: f'{case}, form {p}: {text}'
        )


@pytest.mark.parametrize('name', RESIDUALS)
@torch.no_grad()
def test_residual_blocks_are_exact(name, settled, take_form, many_bundles):
    for stride in (1, 2):
        torch.manual_seed(0)
        block = RESIDUALS[name](stride=stride)
        block, x = settled(block, block.conv1.in_channels)
        assert_exact(compact_residual, block, x, take_form, f'stride {stride}')


@pytest.mark.parametrize('name', INVERTED)
@torch.no_grad()
def test_inverted_residuals_are_exact(name, settled, take_form, many_bundles):
    for sizes in ({}, dict(stride=2), dict(filters=12), dict(hidden=8), dict(hidden=8, stride=2)):
        torch.manual_seed(0)
        block, x = settled(INVERTED[name](**sizes), 8)
        assert_exact(compact_inverted_residual, block, x, take_form, sizes)


@pytest.mark.parametrize('make', [RESIDUALS['MSGC basic'], INVERTED['MSGC']])
@torch.no_grad()
def test_an_input_that_others_read_is_left_as_it_was(make, settled):
    block, x = settled(make(), 8)
    compacted = compact_residual if isinstance(block, BasicBlock) else compact_inverted_residual
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=memory_format)
        before = x.clone()
        compacted(copy.deepcopy(block), owns_input=False)(x)
        assert torch.equal(x, before)


@pytest.mark.parametrize('make', [RESIDUALS['MSGC basic'], INVERTED['MSGC']])
@torch.no_grad()
def test_an_input_that_nobody_else_reads_turns_into_the_output(make, settled):
    block, x = settled(make(), 8)
    compacted = compact_residual if isinstance(block, BasicBlock) else compact_inverted_residual
    expected, x = block(x), x.contiguous(memory_format=torch.channels_last)
    y = compacted(copy.deepcopy(block), owns_input=True)(x)
    assert y.data_ptr() == x.data_ptr()
    torch.testing.assert_close(y, expected, **CLOSE)


class ChannelsFirst(nn.Module):
    def forward(self, x):
        return x.contiguous() * 2


def test_a_shortcut_may_return_any_memory_format():
    torch.manual_seed(0)
    block, x = BasicBlock(8, 8, downsample=ChannelsFirst()).eval(), torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        expected = block(x)
        fast = compact_residual(copy.deepcopy(block), owns_input=False)
        torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-4)


def test_a_compact_block_keeps_of_its_host_only_what_makes_gates():
    fast = compact_residual(RESIDUALS['MSGC bottleneck'](), owns_input=False)
    nets = [[type(net) for net in pair] for pair in fast.gates.nets]
    assert nets == [[MaskGenerator], [MaskGenerator, AttentionGenerator], [MaskGenerator]]
    assert compact_residual(RESIDUALS['DGC basic'](), owns_input=False).gates is None


CONTEXT = dict(cfg=dict(type='ContextBlock', ratio=1 / 4), position='after_conv3')


@pytest.mark.parametrize(
    ('block', 'reason'),
    [
        (Bottleneck(32, 8, plugins=[CONTEXT]), 'it has plugins'),
        (MSGCBottleneck(32, 8, plugins=[CONTEXT], **MSGC), 'it has plugins'),
        (BasicBlock(8, 8, norm_cfg=dict(type='GN', num_groups=2)), 'conv1: its GroupNorm'),
        (BasicBlock(8, 8, conv_cfg=dict(type='ConvWS')), 'conv1: ConvWS2d is not known'),
        (Bottleneck(32, 8, conv_cfg=dict(type='ConvWS')), 'conv1: ConvWS2d is not known'),
    ],
    ids=['plugin', 'MSGC plugin', 'group norm', 'ConvWS', 'ConvWS bottleneck'],
)
def test_residual_blocks_without_a_compact_form(block, reason):
    with pytest.raises(StaysEagerError, match=reason):
        compact_residual(block, owns_input=False)


@pytest.mark.parametrize(
    ('kwargs', 'reason'),
    [
        (dict(se_cfg=dict(channels=24, ratio=4)), 'it has squeeze and excitation'),
        (dict(norm_cfg=dict(type='GN', num_groups=2)), 'expand_conv: its GroupNorm is no fixed'),
        (dict(act_cfg=dict(type='HSwish')), 'expand_conv: Hardswish has no fused form'),
    ],
    ids=['squeeze and excitation', 'group norm', 'activation'],
)
def test_inverted_residuals_without_a_compact_form(kwargs, reason):
    for kind, own in ((InvertedResidual, {}), (MSGCInvertedResidual, MSGC)):
        with pytest.raises(StaysEagerError, match=reason):
            compact_inverted_residual(inverted(kind, **kwargs, **own), owns_input=False)


BN, GN = dict(type='BN'), dict(type='GN', num_groups=2)
MODULES = {
    'norm and activation': dict(norm_cfg=BN),
    'no norm': dict(),
    'no activation': dict(norm_cfg=BN, act_cfg=None),
    'ReLU6': dict(norm_cfg=BN, act_cfg=dict(type='ReLU6')),
    'stride': dict(norm_cfg=BN, stride=2, dilation=2),
    'groups': dict(norm_cfg=BN, groups=2),
    'other activation': dict(norm_cfg=BN, act_cfg=dict(type='SiLU')),
    'other norm': dict(norm_cfg=GN),
    'MSGC': dict(conv_cfg=dict(type='MSGCConv2d')),
    'MSGC with another norm': dict(conv_cfg=dict(type='MSGCConv2d'), norm_cfg=GN),
    'DGC': dict(conv_cfg=dict(type='DGCConv2d'), norm_cfg=BN),
    'FLGC': dict(conv_cfg=dict(type='FLGCConv2d'), norm_cfg=BN),
    'separable': dict(conv_cfg=dict(type='SeparableConv2d'), norm_cfg=BN),
}


@pytest.mark.parametrize('name', MODULES)
@torch.no_grad()
def test_conv_modules_are_exact(name, settled):
    torch.manual_seed(0)
    module, x = settled(ConvModule(8, 8, 3, padding=1, **MODULES[name]), 8)
    fast = compact_conv_module(copy.deepcopy(module))
    assert not any(isinstance(part, (ConvModule, nn.Conv2d)) for part in eager_parts(fast))
    torch.testing.assert_close(fast(x), module(x), **CLOSE)


def eager_parts(module):
    """Modules of a compact one, less the layers that decide gates."""
    if hasattr(module, 'layer'):
        return
    yield module
    for child in module.children():
        yield from eager_parts(child)


@pytest.mark.parametrize(
    ('kwargs', 'reason'),
    [
        (dict(norm_cfg=BN, order=('norm', 'act', 'conv')), 'its order is'),
        (dict(with_spectral_norm=True), 'its weight is normalised'),
        (dict(padding_mode='reflect'), 'it pads by itself'),
        (dict(conv_cfg=dict(type='ConvWS')), 'ConvWS2d is not known'),
    ],
    ids=str,
)
def test_conv_modules_without_a_compact_form(kwargs, reason):
    with pytest.raises(StaysEagerError, match=reason):
        compact_conv_module(ConvModule(8, 8, 3, padding=1, **kwargs))


@pytest.mark.parametrize('bias', [False, True])
@torch.no_grad()
def test_linear_layers_are_exact(bias, mix_gates, many_bundles, take_form):
    torch.manual_seed(0)
    layer = mix_gates(SGCLinear(24, 10, groups=4, bias=bias), torch.randn(2, 24)).double()
    for position, rows in itertools.product((0, 1, -1), (0, 1, 7)):
        fast, x = compact_linear(layer), torch.randn(rows, 24, dtype=torch.float64)
        assert isinstance(fast, CompactLinear)
        torch.testing.assert_close(take_form(fast, position)(x), layer(x), **CLOSE)


def test_linear_layers_do_only_what_is_connected(take_form, many_bundles, convolved):
    layer = SGCLinear(8, 6)
    layer.mask.copy_(torch.arange(6)[:, None] % 2 == torch.arange(8) % 2)
    fast, x = compact_linear(layer), torch.randn(3, 8)
    take_form(fast, 1)(x)
    assert convolved == [(3, 4, 1, 1)] * 2


def test_blocks_with_and_without_shortcut():
    assert isinstance(compact_inverted_residual(INVERTED['MSGC'](), owns_input=False), CompactBlock)
    assert isinstance(
        compact_inverted_residual(INVERTED['MSGC'](stride=2), owns_input=False), CompactBranch
    )
