"""Every config file builds the model that its name says."""

import re
from pathlib import Path

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from mmdet_groupconv.engine.launch import build_model

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FILES = sorted(path for path in CONFIGS.glob('*/*.py') if '_base_' not in path.parts)
IDS = [path.stem for path in FILES]


@pytest.fixture(scope='module', params=FILES, ids=IDS)
def case(request):
    cfg = Config.fromfile(request.param)
    return request.param.stem, cfg, build_model(cfg)


def test_name_tells_detector_backbone_and_depth(case):
    name, _, model = case
    detector, backbone = name.split('_')[:2]
    assert type(model).__name__ == {'retinanet': 'RetinaNet', 'faster-rcnn': 'FasterRCNN'}[detector]
    method, depth = re.fullmatch(r'(?:(\w+)-)?r(\d+)', backbone).groups()
    assert type(model.backbone).__name__ == f'{(method or "").upper()}ResNet'
    assert model.backbone.depth == int(depth)


def test_gate_nets_learn_at_five_times_the_rate_without_decay(case):
    name, cfg, model = case
    if 'msgc' not in name:
        pytest.skip('a dense baseline has no gate nets')
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys.maskgen == keys.attgen == dict(lr_mult=5.0, decay_mult=0.0)
    assert any('maskgen' in parameter for parameter, _ in model.named_parameters())


def test_budget_is_half_of_the_dense_macs(case):
    name, cfg, _ = case
    hooks = {hook['type']: hook for hook in cfg.get('custom_hooks') or []}
    assert ('MACBudgetHook' in hooks) == ('msgc' in name)
    if 'msgc' in name:
        assert hooks['MACBudgetHook']['target'] == 0.5


def test_batch_of_the_1x_schedule_is_two_on_each_of_eight_gpus(case):
    name, cfg, _ = case
    if '1x_coco' not in name:
        pytest.skip('not of the 1x schedule')
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_cfg.max_epochs == 12


def test_data_root_follows_the_environment(monkeypatch):
    monkeypatch.setenv('MMDET_GROUPCONV_DATA', '/elsewhere')
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_msgc-r18_fpn_12e_bccd.py')
    assert cfg.train_dataloader.dataset.data_root == '/elsewhere/bccd/'


@pytest.mark.parametrize('detector', ['retinanet', 'faster-rcnn'])
def test_a_detector_steps_and_predicts(detector):
    torch.manual_seed(0)
    folder = detector.replace('-', '_')
    cfg = Config.fromfile(CONFIGS / folder / f'{detector}_msgc-r18_fpn_12e_bccd.py')
    model = build_model(cfg)
    packed = demo_mm_inputs(2, image_shapes=[(3, 96, 128), (3, 128, 96)], num_classes=3)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3))
    before = model.backbone.layer4[1].conv2.weight.clone()
    losses = model.train().train_step(packed, optimizer)
    assert torch.isfinite(losses['loss'])
    assert not torch.equal(model.backbone.layer4[1].conv2.weight, before)
    with torch.no_grad():
        predictions = model.eval().test_step(packed)
    assert [len(sample.pred_instances.bboxes) <= 100 for sample in predictions] == [True, True]
