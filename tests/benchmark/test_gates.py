from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.backbones import DGCResNet, FLGCResNet, MSGCResNet, SGCResNet
from mmdet_groupconv.benchmark import prepare, set_mac_ratio, varying_share
from mmdet_groupconv.engine.launch import build_model

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def detector(backbone):
    """As much of one as `prepare` looks at."""
    model = nn.Module()
    model.backbone = backbone
    return model


def prepared(backbone, hooks=()):
    model = detector(backbone)
    prepare(model, Config(dict(custom_hooks=list(hooks))), seed=0)
    return model.backbone


def test_gates_are_as_open_as_asked_for():
    network = prepared(MSGCResNet(18, base_channels=16))
    images = torch.randn(2, 3, 96, 96)
    for ratio in (0.4, 0.7):
        assert set_mac_ratio(network, images, ratio) == pytest.approx(ratio, abs=0.005)
        assert count_macs(network, (96, 96), images).ratio == pytest.approx(ratio, abs=0.005)


def test_gates_differ_between_images():
    network = prepared(MSGCResNet(18, base_channels=16))
    set_mac_ratio(network, torch.randn(1, 3, 96, 96), 0.5)
    assert 0.2 < varying_share(network, (96, 96)) < 0.95
    dgc = prepared(DGCResNet(18, base_channels=8, heads=2))
    assert varying_share(dgc, (96, 96)) > 0.05


def test_constant_gates_do_not_differ():
    network = prepared(MSGCResNet(18, base_channels=8))
    for name, parameter in network.named_parameters():
        if name.endswith('conv.3.bias'):
            nn.init.constant_(parameter, 1e4)
    assert varying_share(network, (64, 64)) == 0
    assert varying_share(FLGCResNet(18, base_channels=8).eval(), (64, 64)) is None


def test_a_network_without_such_gates_is_named():
    with pytest.raises(ValueError, match='DGCResNet has no MSGC gates'):
        set_mac_ratio(DGCResNet(18, base_channels=8), torch.randn(1, 3, 64, 64), 0.5)


def test_dgc_is_at_the_end_of_its_schedule():
    network = prepared(DGCResNet(18, base_channels=8, heads=2, gate_factor=0.25))
    assert int(network.layer1[0].conv1.inactive) == 6


def test_sgc_is_pruned_as_far_as_its_config_does():
    steps = dict(type='SelfGroupingHook', steps={1: 20, 2: [40, 60]})
    network = prepared(SGCResNet(18, base_channels=16, groups=4), [steps])
    assert float(network.layer3[0].conv2.mask.mean()) == pytest.approx(0.4, abs=0.05)


@torch.no_grad()
@pytest.mark.parametrize('name', ['retinanet/retinanet', 'faster_rcnn/faster-rcnn'])
def test_networks_get_the_same_boxes_whatever_their_features(name):
    images = torch.randn(1, 3, 64, 64)
    predictions = []
    for method in ('', 'msgc-'):
        cfg = Config.fromfile(CONFIGS / f'{name}_{method}r18_fpn_1x_coco.py')
        cfg.model.backbone.init_cfg = None
        torch.manual_seed(0)
        model = build_model(cfg)
        model.init_weights()
        prepare(model, cfg, seed=0)
        features = [10 * level for level in model.extract_feat(images)]
        head = model.bbox_head if 'retinanet' in name else model.rpn_head
        predictions.append(torch.cat([scores.flatten() for scores in head(features)[0]]))
    torch.testing.assert_close(*predictions, atol=0.05, rtol=0)


def test_separable_heads_predict_next_to_nothing_too():
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_msgc-mbv2_fpn_whole_1x_coco.py')
    cfg.model.backbone.init_cfg = None
    model = build_model(cfg)
    prepare(model, cfg, seed=0)
    predictor = model.bbox_head.retina_cls
    weight = getattr(predictor, 'pointwise', predictor).weight
    assert float(weight.detach().abs().max()) < 1e-3
