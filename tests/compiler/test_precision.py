"""Compact networks in bfloat16."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from torch import nn

from mmdet_groupconv.compiler import compact, fused
from mmdet_groupconv.compiler.fastest import Fastest
from mmdet_groupconv.compiler.freezing import freeze_gates
from mmdet_groupconv.compiler.maps import GlobalMean, gather, take_columns
from mmdet_groupconv.compiler.memory import MapMemory
from mmdet_groupconv.layers import DGCConv2d, GroupedLayer, MaskGenerator

TINY = dict(depth=18, base_channels=16)
BACKBONES = {
    'MSGC': dict(type='MSGCResNet', attention=True, **TINY),
    'DGC': dict(type='DGCResNet', **TINY),
    'FLGC': dict(type='FLGCResNet', groups=4, **TINY),
    'SGC': dict(type='SGCResNet', **TINY),
    'dense': dict(type='ResNet', **TINY),
    'MSGC mbv2': dict(type='MSGCMobileNetV2', widen_factor=0.25),
    'group norm': dict(type='MSGCResNet', norm_cfg=dict(type='GN', num_groups=4), **TINY),
    'plugins': dict(
        type='MSGCResNet',
        depth=50,
        base_channels=8,
        plugins=[dict(cfg=dict(type='ContextBlock', ratio=1 / 4), position='after_conv2')],
    ),
}


@pytest.fixture(params=BACKBONES)
def backbone(request, mix_gates):
    torch.manual_seed(0)
    model = MODELS.build(BACKBONES[request.param])
    model = mix_gates(model, torch.randn(4, 3, 64, 64))
    for module in model.modules():
        if isinstance(module, MaskGenerator):  # none is on the edge
            module.conv[3].weight.data *= 0.1
            module.conv[3].bias.data.sign_().mul_(3)
    return model


def error(found, expected):
    """The largest of several maps, relative to their mean square."""
    pairs = zip(found, expected, strict=True)
    return max(float((x - y).square().mean() / y.square().mean()) for x, y in pairs)


@torch.no_grad()
def test_outputs_are_float32_and_near(backbone):
    model = compact(backbone, precision='bf16')
    ranked = any(isinstance(module, DGCConv2d) for module in backbone.modules())
    for size in ((1, 3, 64, 96), (2, 3, 64, 64)):
        images = torch.randn(size)
        found = model(images)
        assert {x.dtype for x in found} == {torch.float32}, size
        assert 1e-8 < error(found, backbone(images)) < (0.2 if ranked else 2e-3), size


def by_image(layer):
    return isinstance(layer, GroupedLayer) and not layer.static_gate


@torch.no_grad()
def test_every_form_computes_about_the_same(backbone, monkeypatch):
    if any(map(by_image, backbone.modules())):
        backbone = freeze_gates(backbone, [torch.randn(2, 3, 64, 64)], 0.5) or backbone
    images, model = torch.randn(2, 3, 64, 64), compact(backbone, precision='bf16')
    for form in (0, -1):
        monkeypatch.setattr(Fastest, 'choose', lambda s, x, names, *_, at=form: list(names)[at])
        assert error(model(images), backbone(images)) < 2e-3, form


@torch.no_grad()
def test_a_cpu_without_bf16_computes_in_float32_and_says_so(mix_gates, monkeypatch):
    model = mix_gates(MODELS.build(BACKBONES['DGC']), torch.randn(4, 3, 64, 64))
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    monkeypatch.setattr(fused, '_HAS_BF16', lambda: False)
    seen = set()
    conv2d = torch.nn.functional.conv2d
    monkeypatch.setattr(
        torch.nn.functional, 'conv2d', lambda x, *args: (seen.add(x.dtype), conv2d(x, *args))[1]
    )
    with pytest.warns(UserWarning, match='this CPU has no bf16'):
        fast = compact(model, precision='bf16')
    for one, other in zip(fast(x), expected, strict=True):
        assert one.dtype is torch.float32
        assert (one - other).square().mean() < 0.01 * other.var()  # gates may differ
    assert seen == {torch.float32}


@torch.no_grad()
@pytest.mark.skipif(not fused.computes_in(torch.bfloat16), reason='this CPU has no bf16')
def test_convolutions_compute_in_bfloat16_and_gates_in_float32(mix_gates, monkeypatch):
    seen, decided = [], []
    for name in ('_CONV', '_CONV_ADD_'):
        original = getattr(fused, name)
        position = 1 if name == '_CONV_ADD_' else 0
        monkeypatch.setattr(
            fused,
            name,
            lambda *args, original=original, position=position: (
                seen.append(args[position].dtype) or original(*args)
            ),
        )
    decide = DGCConv2d.decide
    monkeypatch.setattr(DGCConv2d, 'decide', lambda s, x: decided.append(x.dtype) or decide(s, x))
    model = mix_gates(MODELS.build(BACKBONES['DGC']), torch.randn(4, 3, 64, 64))
    compact(model, precision='bf16')(torch.randn(1, 3, 64, 64))
    assert set(seen) == {torch.bfloat16}
    assert set(decided) == {torch.float32}


@torch.no_grad()
@pytest.mark.parametrize('detector', ['retinanet', 'faster-rcnn'])
@pytest.mark.parametrize('method', ['msgc', 'sgc'])
def test_detectors_return_boxes_in_float32(detector, method, tiny_detector, mix_gates):
    model = mix_gates(tiny_detector(detector, method), torch.randn(2, 3, 64, 64))
    model.test_cfg.update(score_thr=0.0)
    data = demo_mm_inputs(1, (3, 64, 96))
    data = model.data_preprocessor(data)
    found = compact(model, precision='bf16')(**data, mode='predict')[0].pred_instances
    assert found.bboxes.dtype == found.scores.dtype == torch.float32
    head = compact(model, precision='bf16')
    feats = head.extract_feat(data['inputs'])
    assert {x.dtype for x in feats} == {torch.bfloat16}
    dense = head.rpn_head if hasattr(head, 'rpn_head') else head.bbox_head
    expected = (model.rpn_head if hasattr(model, 'rpn_head') else model.bbox_head)(
        model.extract_feat(data['inputs'])
    )
    for ones, others in zip(dense(feats), expected, strict=True):
        assert {x.dtype for x in ones} == {torch.float32}
        assert error(ones, others) < (0.01 if method == 'sgc' else 0.2)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="precision='fp8', expected one of fp32, bf16"):
        compact(nn.Conv2d(3, 4, 1), precision='fp8')


def test_means_of_bfloat16_are_those_of_float32():
    for size in ((9, 7), (24, 32), (1, 1)):
        torch.manual_seed(0)
        x = (torch.randn(2, 8, *size) + 3).bfloat16().contiguous(memory_format=torch.channels_last)
        means = GlobalMean()(x)
        assert means.dtype == torch.float32
        expected = x.float().mean(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(means, expected, rtol=2e-3, atol=0)


def test_bfloat16_is_gathered_exactly():
    x = torch.randn(1, 8, 5, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    index = torch.tensor([6, 0, 3])
    assert torch.equal(gather(x, index, MapMemory()), x[:, index])
    rows = torch.randn(7, 8).bfloat16()
    assert torch.equal(take_columns(rows, index), rows[:, index])
    out = torch.empty(7, 3, dtype=torch.bfloat16)
    take_columns(rows, index, out=out)
    assert torch.equal(out, rows[:, index])
