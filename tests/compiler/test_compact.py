"""Compact networks compute what eager ones do."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from mmdet.models.backbones import HRNet, ResNeXt
from mmdet.models.backbones.resnet import BasicBlock
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

from mmdet_groupconv.compiler import compact
from mmdet_groupconv.compiler.freezing import freeze_gates
from mmdet_groupconv.compiler.unit import Unit
from mmdet_groupconv.layers import GroupedConv2d, SGCLinear

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TINY = dict(base_channels=8)
BACKBONES = {
    'MSGC r18': dict(type='MSGCResNet', depth=18, **TINY),
    'MSGC r18 attention': dict(type='MSGCResNet', depth=18, attention=True, **TINY),
    'MSGC r50': dict(type='MSGCResNet', depth=50, attention=True, **TINY),
    'DGC r18': dict(type='DGCResNet', depth=18, **TINY),
    'DGC r50': dict(type='DGCResNet', depth=50, heads=2, **TINY),
    'FLGC r18': dict(type='FLGCResNet', depth=18, groups=3, **TINY),
    'FLGC r50': dict(type='FLGCResNet', depth=50, groups=4, **TINY),
    'SGC r18': dict(type='SGCResNet', depth=18, **TINY),
    'plain groups': dict(type='FixedGroupResNet', depth=18, **TINY),
    'MSGC mbv2': dict(type='MSGCMobileNetV2', widen_factor=0.25, attention=True),
    'DGC mbv2': dict(type='DGCMobileNetV2', widen_factor=0.25, heads=2),
    'FLGC mbv2': dict(type='FLGCMobileNetV2', widen_factor=0.25),
    'SGC mbv2': dict(type='SGCMobileNetV2', widen_factor=0.25, out_indices=(7,)),
    'dense': dict(type='ResNet', depth=18, **TINY),
    'deep stem': dict(type='MSGCResNet', depth=50, deep_stem=True, stem_channels=8, **TINY),
    'avg_down': dict(type='DGCResNet', depth=18, avg_down=True, **TINY),
    'caffe': dict(type='MSGCResNet', depth=50, style='caffe', **TINY),
    'dilated': dict(
        type='FLGCResNet', depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), **TINY
    ),
    'group norm': dict(type='MSGCResNet', depth=18, norm_cfg=dict(type='GN', num_groups=4), **TINY),
    'plugins': dict(
        type='MSGCResNet',
        depth=50,
        plugins=[dict(cfg=dict(type='ContextBlock', ratio=1 / 4), position='after_conv2')],
        **TINY,
    ),
}


def build(cfg):
    torch.manual_seed(0)
    return MODELS.build(cfg)


def assert_same(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.isfinite(other).all()
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.fixture(params=BACKBONES)
def backbone(request, mix_gates):
    return mix_gates(build(BACKBONES[request.param]), torch.randn(4, 3, 64, 96))


A_FEW = 'MSGC r50', 'DGC mbv2', 'FLGC r18', 'SGC mbv2', 'deep stem', 'plugins'


@torch.no_grad()
def test_backbones_are_exact(backbone):
    backbone.double()
    fast = compact(backbone)
    for shape in ((1, 3, 64, 96), (3, 3, 64, 96), (2, 3, 70, 41)):
        x = torch.randn(shape, dtype=torch.float64)
        assert_same(fast(x), backbone(x), 1e-5)


@torch.no_grad()
def test_fused_backbones_are_as_exact_as_eager_ones(backbone):
    exact = compact(backbone).double()
    fast = compact(backbone)
    x = torch.randn(2, 3, 64, 96)
    expected, eager = exact(x.double()), backbone(x)
    for turn in range(2):  # the first one tries forms
        found = fast(x)
        for one, other, true in zip(found, eager, expected, strict=True):
            error, of_eager = (float((y - true).abs().max()) for y in (one, other))
            # oneDNN's fused 3x3 calls add up all that a filter reads in one running sum: up to ten
            # times the error of an eager layer (512 channels; measured alone), on some machines.
            assert error <= 10 * of_eager + 2e-5 * float(true.abs().max()), turn


def test_blocks_that_have_a_compact_form_hold_no_eager_grouped_layer():
    for name in ('MSGC r50', 'DGC r18', 'FLGC r18', 'SGC mbv2', 'MSGC mbv2'):
        fast = compact(build(BACKBONES[name]))
        eager = [type(m) for m in fast.modules() if isinstance(m, GroupedConv2d)]
        assert len(eager) == sum(hasattr(m, 'layer') for m in fast.modules()), name


def test_grouped_layers_of_other_networks(mix_gates):
    conv_cfg = dict(type='MSGCConv2d', heads=2)
    stage = dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(2,))
    stage['num_channels'] = (8,)
    basic = dict(num_modules=1, block='BASIC')
    extra = dict(
        stage1=stage,
        stage2=dict(basic, num_branches=2, num_blocks=(2, 2), num_channels=(8, 16)),
        stage3=dict(basic, num_branches=3, num_blocks=(2,) * 3, num_channels=(8, 16, 32)),
        stage4=dict(basic, num_branches=4, num_blocks=(2,) * 4, num_channels=(8, 16, 32, 64)),
    )
    torch.manual_seed(0)
    for network in (
        ResNeXt(depth=50, groups=4, base_width=4, conv_cfg=dict(type='FLGCConv2d'), **TINY),
        HRNet(extra, conv_cfg=conv_cfg),
    ):
        mix_gates(network, torch.randn(2, 3, 64, 64)).double()
        x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
        with torch.no_grad():
            assert_same(compact(network)(x), network(x), 1e-6)


@torch.no_grad()
def test_the_model_is_left_as_it_was(mix_gates):
    for name in A_FEW:
        backbone = mix_gates(build(BACKBONES[name]), torch.randn(4, 3, 64, 96))
        x = torch.randn(1, 3, 64, 64)
        before = {key: value.clone() for key, value in backbone.state_dict().items()}
        expected = [y.clone() for y in backbone(x)]
        compact(backbone)(x)
        after = backbone.state_dict()
        assert list(after) == list(before), name
        assert all(torch.equal(after[key], value) for key, value in before.items()), name
        assert all(torch.equal(*pair) for pair in zip(backbone(x), expected, strict=True)), name


@torch.no_grad()
def test_outputs_of_an_image_outlive_the_next_one(mix_gates):
    for name in A_FEW:
        fast = compact(mix_gates(build(BACKBONES[name]), torch.randn(4, 3, 64, 96)))
        first = fast(torch.randn(1, 3, 64, 64))
        kept = [y.clone() for y in first]
        fast(torch.randn(1, 3, 64, 64))
        assert all(torch.equal(*pair) for pair in zip(first, kept, strict=True)), name


@torch.no_grad()
def test_what_is_remembered_does_not_grow_with_images():
    fast = compact(build(BACKBONES['MSGC r18']))
    units = [m for m in fast.modules() if isinstance(m, Unit) and hasattr(m, 'forms')]
    for size in range(64, 128, 4):
        fast(torch.randn(1, 3, size, 2 * size))
    assert max(len(unit.forms.chosen) for unit in units) <= 4


class ReturnsBoth(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = BasicBlock(8, 8), BasicBlock(8, 8)

    def forward(self, x):
        between = self.first(x)
        return between, self.second(between)


@torch.no_grad()
def test_maps_that_a_network_may_look_at_are_not_overwritten():
    torch.manual_seed(0)
    network, x = ReturnsBoth().eval(), torch.randn(2, 8, 6, 5)
    assert_same(compact(network)(x), network(x), 1e-5)


def test_closed_gates_are_no_trouble():
    network = build(BACKBONES['MSGC r18']).eval()
    for name, parameter in network.named_parameters():
        if 'maskgen' in name and name.endswith('conv.3.bias'):
            torch.nn.init.constant_(parameter, -1e4)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_same(compact(network)(x), network(x), 1e-5)


CONV_CFGS = {
    'msgc': dict(type='MSGCConv2d', heads=2),
    'dgc': dict(type='DGCConv2d', heads=2, pre_norm=False),
    'flgc': dict(type='FLGCConv2d', groups=3),
    'sgc': dict(type='SGCConv2d', groups=4),
    'separable': dict(type='SeparableConv2d', pointwise_cfg=dict(type='MSGCConv2d', heads=2)),
}


@pytest.fixture
def nms_of_doubles(monkeypatch):
    """mmcv's compiled NMS knows float32 alone."""
    operators = sys.modules['mmcv._ext']
    nms = operators.nms
    monkeypatch.setattr(operators, 'nms', lambda x, scores, **kw: nms(x.float(), scores, **kw))


@pytest.mark.usefixtures('nms_of_doubles')
@pytest.mark.parametrize('detector', ['retinanet', 'faster-rcnn'])
@pytest.mark.parametrize('method', CONV_CFGS)
def test_final_boxes_are_the_same(detector, method, mix_gates):
    conv_cfg = CONV_CFGS[method]
    cfg = Config.fromfile(
        CONFIGS / detector.replace('-', '_') / f'{detector}_msgc-r18_fpn_1x_coco.py'
    ).model
    cfg.backbone.update(base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16, conv_cfg=conv_cfg)
    if detector == 'retinanet':
        cfg.bbox_head.update(type='GroupedRetinaHead', pred_cfg=conv_cfg, conv_cfg=conv_cfg)
        cfg.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=2)
        cfg.test_cfg.score_thr = 0.0
    else:
        cfg.rpn_head.update(type='GroupedRPNHead', conv_cfg=conv_cfg)
        cfg.rpn_head.update(in_channels=16, feat_channels=16)
        cfg.roi_head.bbox_roi_extractor.out_channels = 16
        cfg.roi_head.bbox_head.update(
            type='GroupedShared2FCBBoxHead', linear_cfg=dict(type='SGCLinear', groups=4)
        )
        cfg.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32)
        cfg.test_cfg.rcnn.score_thr = 0.0
    model = build(cfg)
    mix_gates(model.backbone, torch.randn(2, 3, 64, 96))
    model.double().eval()
    packed = demo_mm_inputs(2, image_shapes=[(3, 64, 96), (3, 96, 64)])
    data = model.data_preprocessor(packed, False)
    data['inputs'] = data['inputs'].double()
    with torch.no_grad():
        expected = model(**data, mode='predict')
        found = compact(model)(**data, mode='predict')
    for one, other in zip(found, expected, strict=True):
        assert len(other.pred_instances) > 0
        assert one.pred_instances.labels.tolist() == other.pred_instances.labels.tolist()
        torch.testing.assert_close(one.pred_instances.bboxes, other.pred_instances.bboxes)
        torch.testing.assert_close(one.pred_instances.scores, other.pred_instances.scores)


def test_a_tower_that_is_shared_stays_shared():
    shared = torch.nn.Conv2d(4, 4, 3)
    fast = compact(torch.nn.ModuleList([shared, torch.nn.ReLU(), shared]))
    assert fast[0] is fast[2]
    assert fast[0] is not shared


def test_grouped_linear_layers_are_exact():
    torch.manual_seed(0)
    layer = SGCLinear(24, 10, groups=4).double()
    layer.mask.copy_(torch.rand(3, 24)[torch.randint(3, (10,))] > 0.5)
    fast = compact(layer)
    assert type(fast) is not SGCLinear
    for rows in (7, 1, 0):
        x = torch.randn(rows, 24, dtype=torch.float64)
        torch.testing.assert_close(fast(x), layer(x).detach())


class DoublesItsInput(GroupedConv2d):
    def forward(self, x, gate=None):
        return 2 * x


@torch.no_grad()
def test_what_stays_eager_is_named_and_right():
    conv = MODELS.build(dict(type='FLGCConv2d', in_channels=8, out_channels=8, kernel_size=1))
    model = torch.nn.Sequential(conv, torch.nn.Sequential(DoublesItsInput(8, 8, 1))).eval()
    fast, x = compact(model), torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(fast(x), model(x))
    assert fast.stays_eager == {'1.0': 'DoublesItsInput has a forward of its own'}


def test_blocks_with_a_compact_form_leave_nothing_eager():
    assert compact(build(BACKBONES['MSGC r50'])).stays_eager == {}
    assert 'layer1.0' in compact(build(BACKBONES['plugins'])).stays_eager


@torch.no_grad()
@pytest.mark.parametrize('name', ['group norm', 'plugins'])
def test_frozen_layers_of_blocks_that_stay_eager(name, mix_gates):
    model = mix_gates(build(BACKBONES[name]), torch.randn(4, 3, 64, 64))
    batches = [torch.randn(2, 3, 64, 64)]
    frozen, images = copy.deepcopy(model), torch.randn(1, 3, 64, 96)
    freeze_gates(frozen, batches, 0.5)
    found = compact(model, batches)
    assert found.stays_eager
    assert_same(found(images), frozen(images), 1e-4)
