"""tools/benchmark_pruning.py, where torch-pruning is installed."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.engine.launch import build_model

pytest.importorskip('torch_pruning')
DEMO = Path(__file__).resolve().parents[2] / 'configs/demo/retinanet_msgc-r18_scenes.py'


def test_takes_channels_out_until_the_share_is_left_and_keeps_the_outputs_shapes(tool):
    cfg = Config.fromfile(DEMO)
    cfg.model.backbone = dict(type='ResNet', depth=18, base_channels=16, norm_eval=False)
    cfg.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32)
    cfg.model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1)
    model = build_model(cfg).eval()
    image = torch.rand(1, 3, 64, 64)
    before, shapes = count_macs(model, (64, 64)).macs, [x.shape for x in model(image)[0]]
    outputs = [x for maps in model(image) for x in maps]
    losses = iter([sum(x.square().sum() for x in outputs)])
    args = Namespace(macs=0.6, shape=(64, 64), round_to=4)
    left = tool('benchmark_pruning').prune(model, losses, args)
    assert 0.4 < left['detector'] <= 0.6
    assert count_macs(model, (64, 64)).macs / before == pytest.approx(left['detector'])
    assert [x.shape for x in model(image)[0]] == shapes
