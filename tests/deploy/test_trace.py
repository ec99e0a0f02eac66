"""Networks as the graphs that PyTorch traces."""

from functools import partial
from pathlib import Path

import pytest
import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

from mmdet_groupconv.compiler.freezing import freeze_gates
from mmdet_groupconv.deploy.graph import constant
from mmdet_groupconv.deploy.parts import RawOutputs
from mmdet_groupconv.deploy.shapes import takes_one_image
from mmdet_groupconv.deploy.trace import trace

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
TINY = dict(depth=18, base_channels=8)
BY_IMAGE = {
    'MSGC r18': dict(type='MSGCResNet', **TINY),
    'MSGC r18 attention': dict(type='MSGCResNet', attention=True, **TINY),
    'DGC r18': dict(type='DGCResNet', heads=2, **TINY),
    'MSGC mbv2': dict(type='MSGCMobileNetV2', widen_factor=0.25),
}
STATIC = {
    'FLGC r18': dict(type='FLGCResNet', groups=3, **TINY),
    'SGC r18': dict(type='SGCResNet', **TINY),
    'SGC mbv2': dict(type='SGCMobileNetV2', widen_factor=0.25),
    'plain groups': dict(type='FixedGroupResNet', **TINY),
    'dense': dict(type='ResNet', **TINY),
}


def build(cfg):
    torch.manual_seed(0)
    return MODELS.build(cfg)


def detector(name, **settings):
    cfg = Config.fromfile(CONFIGS / f'{name}.py').model
    cfg.backbone.update(base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    for head in (cfg.get('rpn_head'), cfg.get('bbox_head')):
        if head is not None:
            head.update(in_channels=16, feat_channels=16)
    cfg.backbone.update(settings)
    return build(cfg).eval()


@torch.no_grad()
def check(model, graph, run, assert_same, sizes, heads=True):
    raw = RawOutputs(model, heads)
    for size in sizes:
        images = torch.randn(size)
        expected = [y.numpy() for y in raw(images)]
        assert_same(run(graph, images), dict(zip(raw.names, expected, strict=True)))


@pytest.fixture
def network(request, mix_gates):
    return mix_gates(build({**BY_IMAGE, **STATIC}[request.param]), torch.randn(4, 3, 64, 64))


@pytest.mark.parametrize('network', BY_IMAGE, indirect=True)
def test_gates_come_with_the_image_at_any_size(network, run, assert_same):
    graph = trace(network, RawOutputs).graph
    assert takes_one_image(graph)
    check(network, graph, run, assert_same, [(1, 3, 75, 45), (1, 3, 64, 97), (1, 3, 101, 33)])


@pytest.mark.parametrize('network', STATIC, indirect=True)
def test_static_networks_take_batches_of_any_size(network, run, assert_same):
    graph = trace(network, RawOutputs).graph
    assert not takes_one_image(graph)
    check(network, graph, run, assert_same, [(1, 3, 75, 45), (2, 3, 64, 97)])


@pytest.mark.parametrize('network', ['SGC r18', 'FLGC r18'], indirect=True)
def test_connections_that_are_closed_are_zeros_in_the_graph(network):
    graph = trace(network, RawOutputs).graph.graph
    weights = {node.inputs[1] for node in graph if node.op_type == 'Conv'}
    assert sum((constant(weight) == 0).mean() > 0.2 for weight in weights) == 16
    assert not any(node.op_type == 'BatchNormalization' for node in graph)


@pytest.mark.parametrize('network', ['MSGC r18', 'DGC r18'], indirect=True)
def test_frozen_gates_are_static(network, run, assert_same):
    freeze_gates(network, [torch.randn(4, 3, 64, 64)], 0.5)
    graph = trace(network, RawOutputs).graph
    assert not takes_one_image(graph)
    check(network, graph, run, assert_same, [(1, 3, 75, 45), (2, 3, 64, 97)])


def test_one_stage_detectors_end_with_what_the_head_predicts(run, assert_same, mix_gates):
    model = detector('retinanet/retinanet_flgc-r18_fpn_whole_1x_coco')
    mix_gates(model, torch.randn(4, 3, 64, 64))
    graph = trace(model, RawOutputs).graph
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        scores, boxes = model.bbox_head(model.extract_feat(images))
    expected = {f'cls_score_{i}': y.numpy() for i, y in enumerate(scores)}
    expected.update({f'bbox_pred_{i}': y.numpy() for i, y in enumerate(boxes)})
    assert len(expected) == 10
    assert_same(run(graph, images), expected)


def test_sides_of_different_levels_are_not_called_the_same():
    graph = trace(detector('retinanet/retinanet_sgc-r18_fpn_1x_coco'), RawOutputs).graph
    sides = [output.shape[2:] for output in graph.graph.outputs]
    assert {side.value for of_output in sides for side in of_output} == {None}


def test_without_heads_detectors_end_with_the_neck(run, assert_same):
    model = detector('retinanet/retinanet_msgc-r18_fpn_1x_coco')
    graph = trace(model, partial(RawOutputs, heads=False)).graph
    assert [y.name for y in graph.graph.outputs] == [f'feature_{i}' for i in range(5)]
    check(model, graph, run, assert_same, [(1, 3, 96, 65)], heads=False)


def test_two_stage_detectors_end_with_what_the_rpn_predicts(run, assert_same):
    model = detector('faster_rcnn/faster-rcnn_sgc-r18_fpn_1x_coco')
    graph = trace(model, RawOutputs).graph
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = model.extract_feat(images)
        scores, boxes = model.rpn_head(features)
    expected = {
        f'{name}_{i}': y.numpy()
        for name, maps in dict(feature=features, rpn_cls_score=scores, rpn_bbox_pred=boxes).items()
        for i, y in enumerate(maps)
    }
    assert_same(run(graph, images), expected)


class Other(BaseDetector):
    extract_feat = loss = predict = _forward = None


def test_other_detectors_are_refused():
    with pytest.raises(ValueError, match='Other is no one-stage or two-stage detector'):
        trace(Other(), RawOutputs)


def test_the_network_is_left_as_it_was(mix_gates):
    network = mix_gates(build(BY_IMAGE['MSGC r18']), torch.randn(4, 3, 64, 64))
    network.train()
    network.layer2.eval()
    modes = [module.training for module in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    modules = dict(network.named_modules())
    trace(network, RawOutputs)
    assert [module.training for module in network.modules()] == modes
    assert dict(network.named_modules()) == modules
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
