from pathlib import Path

import pytest
from mmengine.config import Config

DEMO = Path(__file__).resolve().parents[2] / 'configs/demo/retinanet_msgc-r18_scenes.py'


@pytest.fixture
def tiny_cfg(tmp_path) -> Config:
    """The demo's config, small: 4 iterations on 8 images of 64 pixels, 4 images for validation.

    The budget's weight is 30.
    """
    cfg = Config.fromfile(DEMO)
    cfg.work_dir = str(tmp_path / 'work_dir')
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.model.bbox_head.update(in_channels=8, feat_channels=8)
    for loader, images in ((cfg.train_dataloader, 8), (cfg.val_dataloader, 4)):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(tmp_path), num_images=images, image_size=64)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(
        tmp_path / 'annotations/val.json'
    )
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler = []
    cfg.custom_hooks[0].weight = 30.0
    cfg.default_hooks.logger.interval = 1
    cfg.experiment_name = cfg.visualizer.name = tmp_path.name  # one of a name for the process
    return cfg
