"""Memory stays where it is in long runs."""

import copy
import gc
import os
import statistics
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_groupconv.compiler import compact

DEMO = Path(__file__).resolve().parents[2] / 'configs/demo/retinanet_msgc-r18_scenes.py'
STATM = Path('/proc/self/statm')
HOOKS = {'msgc': dict(type='MACBudgetHook'), 'dgc': dict(type='DGCScheduleHook')}
SIZES = (64, 64), (64, 96), (96, 64), (80, 112), (112, 80)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STATM.is_file(), reason='the resident set is read from /proc'),
]


def resident() -> int:
    """Bytes."""
    return int(STATM.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def growth(sizes: list[int]) -> float:
    """Of the last tenth's median over the first tenth's."""
    tenth = len(sizes) // 10
    first, last = statistics.median(sizes[:tenth]), statistics.median(sizes[-tenth:])
    print(f'{first / 2**20:.1f} -> {last / 2**20:.1f} MiB: {last / first - 1:+.2%}')
    return last / first - 1


class Resident(Hook):
    """Bytes after each training iteration."""

    def __init__(self) -> None:
        self.sizes = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.sizes.append(resident())


@pytest.mark.parametrize('method', HOOKS)
def test_training_for_2000_iterations(tmp_path, method):
    cfg = Config.fromfile(DEMO)
    cfg.work_dir = str(tmp_path / 'work_dir')
    cfg.experiment_name = cfg.visualizer.name = tmp_path.name
    cfg.model.backbone.update(type=f'{method.upper()}ResNet', base_channels=8)
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.model.bbox_head.update(in_channels=8, feat_channels=8)
    for loader, images in ((cfg.train_dataloader, 200), (cfg.val_dataloader, 8)):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(tmp_path), num_images=images, image_size=64)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = f'{tmp_path}/annotations/val.json'
    cfg.train_cfg.update(max_epochs=20, val_interval=1)
    cfg.param_scheduler = []
    cfg.custom_hooks = [HOOKS[method]]
    runner = Runner.from_cfg(cfg)
    observer = Resident()
    runner.register_hook(observer)
    runner.train()
    assert len(observer.sizes) == 2000
    assert growth(observer.sizes[200:]) < 0.02


@pytest.mark.parametrize('form', ['eager', 'compact'])
@pytest.mark.parametrize('detector', ['retinanet', 'faster-rcnn'])
def test_evaluation_of_400_batches(tiny_detector, packed, detector, form):
    model = tiny_detector(detector, 'msgc')
    model.init_weights()
    torch.nn.init.normal_(model.backbone.layer4[1].maskgen2.conv[3].bias)
    model = (compact(model) if form == 'compact' else model).eval()
    batches = [packed(size, size) for size in SIZES]
    sizes = []
    for number in range(400):
        with torch.no_grad():
            model.test_step(copy.deepcopy(batches[number % len(batches)]))
        sizes.append(resident())
    gc.collect()
    assert growth(sizes[100:]) < 0.02
