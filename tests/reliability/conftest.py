from pathlib import Path

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

from mmdet_groupconv.engine.launch import build_model

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.fixture(scope='session')
def tiny_detector():
    """``tiny_detector('retinanet', 'msgc', 'r18', **backbone)``: the ready whole config, narrow."""
    return _tiny_detector


def _tiny_detector(detector: str, method: str, host: str = 'r18', **backbone):
    folder = CONFIGS / detector.replace('-', '_')
    model = Config.fromfile(folder / f'{detector}_{method}-{host}_fpn_whole_1x_coco.py').model
    model.backbone.update(frozen_stages=-1, init_cfg=None, **backbone)
    if host != 'mbv2':
        model.backbone.base_channels = 8
        model.neck.in_channels = [8, 16, 32, 64]
    model.neck.out_channels = 16
    if 'roi_head' in model:
        model.roi_head.bbox_head.fc_out_channels = 32
        model.roi_head.bbox_roi_extractor.out_channels = 16
    heads = [model.rpn_head, model.roi_head.bbox_head] if 'roi_head' in model else [model.bbox_head]
    for part in (*heads, model.neck):
        if part is not model.neck:
            part.in_channels = 16
        if 'feat_channels' in part:
            part.feat_channels = 16
        if part.get('norm_cfg', {}).get('type') == 'GN':
            part.norm_cfg.num_groups = 4
    torch.manual_seed(0)
    return build_model(Config(dict(model=model)))


@pytest.fixture(scope='session')
def packed():
    """``packed(size, size, boxes=None)``: a batch with an image of each ``(height, width)``.

    boxes: of each image; some where not given.
    """

    def packed(*sizes, boxes=None):
        shapes = [(3, *size) for size in sizes]
        counts = None if boxes is None else [boxes] * len(sizes)
        return demo_mm_inputs(len(sizes), shapes, counts, num_classes=3)

    return packed
