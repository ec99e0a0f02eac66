"""Each recipe for MS COCO trains and validates, on a few of its images."""

import os
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_groupconv.checkpoints import write_checkpoint
from mmdet_groupconv.engine.launch import build_model

PROJECT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get('MMDET_GROUPCONV_SHARED', PROJECT.parent / 'shared'))
DATA = Path(os.environ.get('MMDET_GROUPCONV_DATA', SHARED / 'data')) / 'coco_tiny'
RECIPES = sorted(PROJECT.glob('configs/*/*_1x_coco.py'))
SIZE = (160, 96)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f'{DATA} not found'),
]


@pytest.fixture
def weights(tmp_path):
    """``weights(cfg)``: a file with random ones."""

    def weights(cfg):
        model = build_model(cfg)
        model.init_weights()
        path = tmp_path / f'{len(list(tmp_path.glob("*.pth")))}.pth'
        write_checkpoint(path, model.state_dict(), {})
        return str(path)

    return weights


def without_downloads(cfg):
    """None of the files that recipes begin with is there."""
    cfg.model.backbone.init_cfg = None
    return cfg


def on_few_images(cfg):
    for mode, images in (('train', 4), ('val', 2)):
        loader = cfg[f'{mode}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=f'{DATA}/', indices=images)
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = SIZE
    cfg.val_evaluator.ann_file = f'{DATA}/annotations/instances_val2017.json'
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    return cfg


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_and_validates(path, train, weights):
    cfg = on_few_images(without_downloads(Config.fromfile(path)))
    if cfg.get('load_from'):
        cfg.load_from = weights(cfg)
    for hook in cfg.custom_hooks:
        if hook.type == 'DistillationHook':
            teacher = without_downloads(Config.fromfile(hook.config))
            hook.update(config=teacher.to_dict(), checkpoint=weights(teacher))
    runner = train(cfg)
    assert runner.iter == 2
    assert (Path(runner.work_dir) / 'epoch_1.pth').is_file()
