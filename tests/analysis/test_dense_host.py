"""The dense network that stands beside a grouped one has its shapes, and no gates."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet_groupconv.analysis.dense_host import dense_host, dense_model_cfg
from mmdet_groupconv.layers import GroupedLayer

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def convolutions(model, only=lambda name: True):
    return {
        name.replace('.pointwise', ''): module.weight.shape
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and only(name)
    }


@pytest.mark.parametrize(
    'name',
    [
        'retinanet/retinanet_flgc-r18_fpn_whole_1x_coco.py',
        'retinanet/retinanet_msgc-mbv2_fpn_whole_1x_coco.py',
        'faster_rcnn/faster-rcnn_sgc-r18_fpn_whole_1x_coco.py',
        'faster_rcnn/faster-rcnn_dgc-mbv2_fpn_whole_1x_coco.py',
    ],
)
def test_whole_grouped_detectors_become_dense_ones(name):
    cfg = Config.fromfile(CONFIGS / name).model
    grouped, dense = MODELS.build(cfg), MODELS.build(dense_model_cfg(cfg))
    assert any(isinstance(module, GroupedLayer) for module in grouped.modules())
    assert not any(isinstance(module, GroupedLayer) for module in dense.modules())
    gates = 'maskgen', 'attgen', 'saliency'
    of_grouped = convolutions(grouped, lambda name: not any(gate in name for gate in gates))
    assert convolutions(dense) == of_grouped


def test_a_dense_config_stays_as_it_is():
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_r18_fpn_1x_coco.py').model
    assert dense_model_cfg(cfg) == cfg


def test_the_config_itself_is_left_alone():
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_msgc-r18_fpn_1x_coco.py').model
    before = cfg.to_dict()
    dense_model_cfg(cfg)
    assert cfg.to_dict() == before


@pytest.mark.parametrize('method', ['MSGC', 'DGC', 'FLGC', 'SGC'])
def test_the_dense_host_has_the_grouped_network_s_weights(method):
    name = f'retinanet/retinanet_{method.lower()}-r18_fpn_1x_coco.py'
    cfg = Config.fromfile(CONFIGS / name).model
    cfg.backbone.update(base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.bbox_head.update(in_channels=8, feat_channels=8)
    model = MODELS.build(cfg).eval()
    host = dense_host(model, cfg)
    weights = model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in host.state_dict().items())
    assert not host.training
