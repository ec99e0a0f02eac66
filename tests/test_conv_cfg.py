import re
import subprocess
import sys

import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.cnn import build_conv_layer as build_by_mmcvs_name
from mmdet.models.backbones import HRNet, RegNet, ResNeXt
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.necks import FPN
from mmengine.registry import MODELS
from torch import nn

from mmdet_groupconv import layers
from mmdet_groupconv.conv_cfg import build_conv_layer, replace_layer
from mmdet_groupconv.heads import GroupedRPNHead
from mmdet_groupconv.layers import GroupedConv2d, SeparableConv2d

CONV_CFGS = {
    'FLGC': dict(type='FLGCConv2d', groups=8),
    'DGC': dict(type='DGCConv2d'),
    'DGC without norm': dict(type='DGCConv2d', pre_norm=False),
    'SGC': dict(type='SGCConv2d'),
    'MSGC': dict(type='MSGCConv2d', attention=True),
    'Fixed': dict(type='FixedGroupConv2d'),
    'Separable': dict(type='SeparableConv2d', pointwise_cfg=dict(type='MSGCConv2d')),
}
GROUPED = [dict(type=f'{name}Conv2d') for name in ('FLGC', 'DGC', 'SGC', 'MSGC', 'FixedGroup')]


def fpn(cfg):
    return FPN(in_channels=[8, 16], out_channels=16, num_outs=3, conv_cfg=cfg)


def retina(cfg):
    return RetinaHead(2, 16, feat_channels=16, stacked_convs=2, conv_cfg=cfg)


def rpn(cfg, num_convs=1):
    return GroupedRPNHead(16, feat_channels=16, num_convs=num_convs, conv_cfg=cfg)


def rpn_of_two(cfg):
    return rpn(cfg, num_convs=2)


def resnext(cfg):
    stage = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    return ResNeXt(
        depth=50, groups=4, base_width=4, base_channels=16, norm_eval=False, conv_cfg=cfg, **stage
    )


def regnet(cfg):
    arch = dict(w0=16, wa=16.0, wm=2.0, group_w=8, depth=2, bot_mul=1.0)
    stages = dict(strides=(2, 2), dilations=(1, 1), out_indices=(0, 1))
    return RegNet(arch, norm_eval=False, conv_cfg=cfg, **stages)


def hrnet(cfg):
    def stage(block, *channels):
        return dict(
            num_modules=1,
            num_branches=len(channels),
            block=block,
            num_blocks=(1,) * len(channels),
            num_channels=channels,
        )

    extra = dict(
        stage1=stage('BOTTLENECK', 8),
        stage2=stage('BASIC', 8, 16),
        stage3=stage('BASIC', 8, 16, 24),
        stage4=stage('BASIC', 8, 16, 24, 32),
    )
    return HRNet(extra, conv_cfg=cfg)


def features():
    torch.manual_seed(0)
    return tuple(torch.randn(2, 16, size, size) for size in (8, 4, 2))


def image():
    torch.manual_seed(0)
    return torch.randn(2, 3, 64, 64)


# Hosts, what they are given, and how many convolutions of theirs can be grouped.
HOSTS = {
    'FPN': (fpn, lambda: (torch.randn(2, 8, 8, 8), torch.randn(2, 16, 4, 4)), 4),
    'RetinaHead': (retina, features, 4),
    'RPN': (rpn, features, 1),
    'RPN of two': (rpn_of_two, features, 2),
    # 3 blocks of a 1x1 before and after the one that is grouped already, a shortcut
    'ResNeXt': (resnext, image, 7),
    # 2 blocks like these, a shortcut each
    'RegNet': (regnet, image, 6),
    # all of a dense one's but the first
    'HRNet': (hrnet, image, 52),
}


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in flat(part)]


def grouped(host):
    return {n: m for n, m in host.named_modules() if isinstance(m, GroupedConv2d)}


# Every host takes every layer.


@pytest.mark.parametrize('name', HOSTS)
def test_host_has_every_layer_and_trains_with_it(name):
    make, inputs, count = HOSTS[name]
    for method, cfg in CONV_CFGS.items():
        torch.manual_seed(0)
        host = make(cfg)
        assert len(grouped(host)) == count, method
        host.train()
        sum(out.square().mean() for out in flat(host(inputs()))).backward()
        for key, parameter in host.named_parameters():
            assert parameter.grad is not None, f'{method}: no gradient for {key}'
            assert parameter.grad.isfinite().all(), f'{method}: gradient for {key} is not finite'


def test_layer_gets_the_hosts_geometry():
    module = ConvModule(
        8, 16, 3, stride=2, padding=2, dilation=2, conv_cfg=dict(type='FLGCConv2d', groups=8)
    )
    conv = module.conv
    assert conv.stride == conv.padding == conv.dilation == (2, 2)
    assert conv.groups == 1
    assert conv.channel_logits.shape == (8, 8)
    assert module(torch.randn(2, 8, 9, 9)).shape == (2, 16, 5, 5)


@pytest.mark.parametrize(('cfg', 'batch'), [('MSGC', 2), ('DGC without norm', 2), ('FLGC', 1)])
def test_shared_tower_has_gates_for_each_level_and_image(cfg, batch):
    head, calls = retina(CONV_CFGS[cfg]), []
    head.cls_convs[0].conv.register_gate_hook(
        lambda layer, gate, x, y: calls.append((gate.mask.size(0), x.size(2)))
    )
    head(features())
    assert calls == [(batch, 8), (batch, 4), (batch, 2)]


def test_separable_layer_groups_its_pointwise_convolution():
    layer = build_conv_layer(CONV_CFGS['Separable'], 8, 16, 3, padding=1)
    assert type(layer.depthwise) is nn.Conv2d
    assert type(layer.pointwise) is layers.MSGCConv2d
    assert layer(torch.randn(2, 8, 5, 5)).shape == (2, 16, 5, 5)


def test_separable_layer_is_plain_without_a_pointwise_cfg():
    layer = build_conv_layer(dict(type='SeparableConv2d'), 8, 16, 3)
    assert type(layer.pointwise) is nn.Conv2d


def test_config_is_left_as_it_was():
    cfg = dict(type='SeparableConv2d', pointwise_cfg=dict(type='FLGCConv2d', groups=2))
    build_conv_layer(cfg, 8, 8, 3)
    assert cfg == dict(type='SeparableConv2d', pointwise_cfg=dict(type='FLGCConv2d', groups=2))


def test_layer_may_be_given_as_a_class():
    cfg = dict(type=layers.FLGCConv2d, groups=2)
    assert type(build_conv_layer(cfg, 8, 8, 3, groups=1)) is layers.FLGCConv2d


# Layers that stay dense.


@pytest.mark.parametrize('groups', [2, 32])
def test_convolution_that_its_host_groups_stays_so(groups):
    for cfg in (*GROUPED, dict(type='SeparableConv2d')):
        layer = build_conv_layer(cfg, 64, 64, 3, groups=groups, bias=False)
        assert type(layer) is nn.Conv2d, cfg
        assert layer.groups == groups
        assert layer.bias is None
        assert layer.why_dense == f'its host groups it by {groups}'


def test_resnext_keeps_its_own_groups():
    conv = resnext(CONV_CFGS['FLGC']).layer1[0].conv2
    assert (type(conv), conv.groups, conv.why_dense) == (nn.Conv2d, 4, 'its host groups it by 4')


def test_stem_stays_dense():
    for cfg in (*GROUPED, dict(type='SeparableConv2d')):
        layer = build_conv_layer(cfg, 3, 16, 7, stride=2)
        assert type(layer) is nn.Conv2d, cfg
        assert layer.why_dense == 'it reads the image'


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='DGCConv2d', heads=8),
        dict(type='MSGCConv2d', heads=8),
        dict(type='FixedGroupConv2d', groups=8),
    ],
    ids=lambda cfg: cfg['type'],
)
def test_too_few_channels_stay_dense(cfg):
    layer = build_conv_layer(cfg, 16, 4, 1)
    assert type(layer) is nn.Conv2d
    assert re.fullmatch('16 -> 4 channels for 8 (heads|groups)', layer.why_dense)


# Errors, and what is none of our business.


def test_unknown_argument_names_the_layer():
    for cfg in (*GROUPED, dict(type='SeparableConv2d')):
        unknown = f"{cfg['type']} got an unknown argument 'strid', .*stride"
        with pytest.raises(TypeError, match=unknown):
            build_conv_layer(dict(cfg, strid=2), 8, 8, 3)


def test_unknown_argument_of_a_linear_layer_names_it():
    host = nn.ModuleDict(dict(fc=nn.Linear(4, 4)))
    with pytest.raises(TypeError, match=r"SGCLinear .* 'group', did you mean 'groups'"):
        replace_layer(host, 'fc', dict(type='SGCLinear', group=2))


def test_value_out_of_range_names_the_layer():
    with pytest.raises(ValueError, match='groups=0 of FLGCConv2d, expected an integer of 1 or'):
        build_conv_layer(dict(type='FLGCConv2d', groups=0), 8, 8, 3)


@pytest.mark.parametrize('cfg', [None, dict(type='Conv2d'), dict(type='Conv')], ids=str)
def test_plain_convolutions_are_mmcvs(cfg):
    layer = build_conv_layer(cfg, 4, 8, 3, groups=2, padding=1)
    assert isinstance(layer, nn.Conv2d)
    assert not hasattr(layer, 'why_dense')
    assert (layer.groups, layer.padding) == (2, (1, 1))


def test_other_layers_are_mmcvs():
    assert type(build_conv_layer(dict(type='Conv1d'), 4, 8, 3)) is nn.Conv1d


@pytest.mark.parametrize(
    ('cfg', 'error'),
    [
        (dict(type='NoConv2d'), KeyError),
        (dict(groups=2), KeyError),
        (['Conv2d'], TypeError),
        ('Conv2d', TypeError),
    ],
)
def test_wrong_configs_get_the_kind_of_error_that_mmcv_raises(cfg, error):
    with pytest.raises(error):
        build_conv_layer(cfg, 4, 8, 3)


# Registering.


def test_mmcvs_name_is_ours():
    assert build_by_mmcvs_name is build_conv_layer


def test_layers_are_known_in_every_scope():
    for cfg in (*GROUPED, dict(type='SGCLinear')):
        assert MODELS.get(cfg['type']) is getattr(layers, cfg['type'])
        assert MODELS.get(f'mmdet.{cfg["type"]}') is getattr(layers, cfg['type'])


def test_modules_imported_before_the_package_build_our_layers_too():
    script = """
from mmcv.cnn import ConvModule, build_conv_layer
mmcvs = build_conv_layer
import mmdet_groupconv
assert build_conv_layer is not mmcvs
conv = ConvModule(8, 8, 3, conv_cfg=dict(type='FLGCConv2d', groups=4)).conv
print(type(conv).__name__, conv.channel_logits.size(1))
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'FLGCConv2d 4'


# Replacing.


@pytest.mark.parametrize('bias', [True, False])
def test_replaced_convolution_keeps_its_geometry_and_key(bias):
    host = nn.Sequential(nn.Sequential(nn.Conv2d(8, 16, 3, 2, padding=1, dilation=2, bias=bias)))
    old = host[0][0]
    replace_layer(host, '0.0', dict(type='SGCConv2d'))
    new = host[0][0]
    assert type(new) is layers.SGCConv2d
    new.load_state_dict(old.state_dict(), strict=False)
    x = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(new(x), old(x))


@pytest.mark.parametrize('bias', [True, False])
def test_replaced_linear_layer_keeps_its_shape_and_key(bias):
    host = nn.Sequential(nn.Linear(8, 4, bias=bias))
    old = host[0]
    replace_layer(host, '0', dict(type='SGCLinear', groups=2))
    assert type(host[0]) is layers.SGCLinear
    host[0].load_state_dict(old.state_dict(), strict=False)
    x = torch.randn(2, 8)
    torch.testing.assert_close(host(x), old(x))


def test_replaced_depthwise_convolution_stays_depthwise():
    host = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8))
    replace_layer(host, '0', dict(type='FLGCConv2d', groups=2))
    assert (type(host[0]), host[0].groups) == (nn.Conv2d, 8)


def test_separable_layer_is_the_depthwise_then_the_pointwise():
    torch.manual_seed(0)
    layer, x = SeparableConv2d(4, 6, 3, padding=1), torch.randn(2, 4, 5, 5)
    expected = nn.functional.conv2d(x, layer.depthwise.weight, padding=1, groups=4)
    expected = nn.functional.conv2d(expected, layer.pointwise.weight, layer.pointwise.bias)
    torch.testing.assert_close(layer(x), expected)
