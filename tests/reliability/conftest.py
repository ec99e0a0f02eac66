import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS = PROJECT / 'configs'
DEMO = CONFIGS / 'demo/retinanet_msgc-r18_scenes.py'
METHODS = {
    'msgc': (dict(type='MSGCResNet'), dict(type='MACBudgetHook', weight=30.0, settle=0.8)),
    'dgc': (dict(type='DGCResNet', gate_factor=0.5), dict(type='DGCScheduleHook')),
    'flgc': (dict(type='FLGCResNet', groups=3), dict(type='MACRatioHook')),
    'sgc': (
        dict(type='SGCResNet', groups=3),
        dict(type='SelfGroupingHook', steps={0: 20, 1: [30, 40], 2: 60}),
    ),
}


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


@pytest.fixture
def tiny_detector_cfg(tmp_path):
    """``tiny_detector_cfg(method)``: the demo's config, small, with the method's hook.

    3 epochs of 4 iterations on 8 images of 64 pixels, flipped by chance; each ends with a
    checkpoint, of which one is kept, and a validation on 2 images. Seeded.
    """

    def read(method: str) -> Config:
        cfg = Config.fromfile(DEMO)
        backbone, hook = METHODS[method]
        cfg.model.backbone.update(base_channels=8, **backbone)
        cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
        cfg.model.bbox_head.update(in_channels=8, feat_channels=8)
        for loader, images in ((cfg.train_dataloader, 8), (cfg.val_dataloader, 2)):
            loader.update(batch_size=2, num_workers=0, persistent_workers=False)
            loader.dataset.update(data_root=str(tmp_path), num_images=images, image_size=64)
        cfg.test_dataloader = cfg.val_dataloader
        ann_file = str(tmp_path / 'annotations/val.json')
        cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = ann_file
        cfg.train_cfg.update(max_epochs=3, val_interval=1)
        cfg.custom_hooks = [hook]
        cfg.default_hooks.logger.interval = 1
        cfg.default_hooks.checkpoint = dict(
            type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='mac_ratio', rule='less'
        )
        cfg.randomness = dict(seed=0)
        return cfg

    return read


@pytest.fixture
def train_in_processes(tmp_path):
    """``train_in_processes(cfg, *runs)``: tools/train.py, once for each run; see forked_runs.py.

    A run is a dict with the name of its `work_dir`, whether to `resume`, and how it ends early.
    Returns the runs with `status` and `files`.
    """

    def train(cfg: Config, *runs: dict) -> list[dict]:
        config, plan = tmp_path / 'config.py', tmp_path / 'runs.json'
        cfg.dump(config)
        for run in runs:
            resume = ['--resume'] if run.get('resume') else []
            work_dir = f'--work-dir={tmp_path / run["work_dir"]}'
            run['arguments'] = [str(config), work_dir, *resume]
        plan.write_text(json.dumps(runs))
        command = [sys.executable, str(Path(__file__).with_name('forked_runs.py')), str(plan)]
        environment = dict(os.environ, PYTHONPATH=str(PROJECT), OMP_NUM_THREADS='1')
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(plan.read_text())

    return train


@pytest.fixture
def small_files():
    """``small_files(bytes)``: a file can't grow beyond that, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
