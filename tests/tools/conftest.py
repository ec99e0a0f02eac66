"""A small dense detector, for tools that start from one."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet_groupconv.engine.launch import build_model

DEMO = Path(__file__).resolve().parents[2] / 'configs/demo/retinanet_msgc-r18_scenes.py'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A dense detector's config and weights, and scenes to train on."""
    folder = tmp_path_factory.mktemp('dense')
    cfg = Config.fromfile(DEMO)
    cfg.model.backbone = dict(
        type='ResNet', depth=18, base_channels=16, norm_eval=False, zero_init_residual=False
    )
    cfg.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32)
    cfg.model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1)
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(folder), num_images=4, image_size=64)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(folder / 'annotations/val.json')
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    cfg.custom_hooks = [dict(type='MACRatioHook')]
    cfg.default_hooks.logger.interval = 1
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    meta = dict(dataset_meta=dict(classes=['a']), epoch=3)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'dense.pth')
    return folder
