"""Every detector's config file builds the model that its name says, learns and predicts."""

import re
from pathlib import Path

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.layers import (
    DGCConv2d,
    GroupedLayer,
    MSGCConv2d,
    SaliencyNet,
    SelfGrouping,
)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FILES = sorted(
    path
    for folder in ('demo', 'faster_rcnn', 'retinanet')
    for path in CONFIGS.glob(f'{folder}/*.py')
)
WHOLE = [path for path in FILES if '_whole_1x_coco' in path.stem]
METHODS = {'msgc': 'MSGC', 'dgc': 'DGC', 'flgc': 'FLGC', 'sgc': 'SGC', 'fixed': 'FixedGroup'}
HOOKS = {
    'msgc': 'MACBudgetHook',
    'dgc': 'DGCScheduleHook',
    'sgc': 'SelfGroupingHook',
    'flgc': 'MACRatioHook',
    'fixed': 'MACRatioHook',
    'dense': 'MACRatioHook',
}


def stem(path):
    return path.stem


def method_and_host(name):
    return re.fullmatch(r'(?:(\w+)-)?(r18|r50|mbv2)(?:-pre)?', name.split('_')[1]).groups()


@pytest.fixture(scope='module', params=FILES, ids=stem)
def case(request):
    cfg = Config.fromfile(request.param)
    torch.manual_seed(0)
    return request.param.stem, cfg, build_model(cfg)


def test_name_tells_detector_backbone_and_depth(case):
    name, _, model = case
    detectors = {'retinanet': 'RetinaNet', 'faster-rcnn': 'FasterRCNN'}
    assert type(model).__name__ == detectors[name.split('_')[0]]
    method, host = method_and_host(name)
    backbone = type(model.backbone).__name__
    if host == 'mbv2':
        assert backbone == f'{METHODS[method] if method else "Trimmed"}MobileNetV2'
    else:
        assert backbone == f'{METHODS.get(method, "")}ResNet'
        assert model.backbone.depth == int(host[1:])


def test_the_method_s_hook_comes_along(case):
    name, cfg, _ = case
    hooks = {hook.type: hook for hook in cfg.get('custom_hooks') or []}
    as_pretrained = '_dgc-mbv2-pre_' in name  # which drops what pretraining dropped
    method = method_and_host(name)[0] or 'dense'
    if '_distill_' in name:
        assert 'DistillationHook' in hooks  # the others: tests/engine/test_grouped_config.py
    else:
        assert list(hooks) == ['MACRatioHook' if as_pretrained else HOOKS[method]]
    if 'MACBudgetHook' in hooks:
        scope = 'detector' if '_whole_' in name else 'backbone'
        hook = hooks['MACBudgetHook']
        target = 0.457 if 'r50_fpn_pre' in name else 0.5
        assert (hook.target, hook.get('scope', 'backbone')) == (target, scope)
        held = (hook.get('start'), hook.get('stop')) == (0.0, 0.0)
        assert held == ('_pre_' in name)


def test_gate_nets_learn_at_five_times_the_rate_without_decay(case):
    name, cfg, model = case
    if method_and_host(name)[0] != 'msgc' or '_pre_' in name:
        pytest.skip('other methods have no gate nets of that kind, pretrained ones learn slower')
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys.maskgen == keys.attgen == dict(lr_mult=5.0, decay_mult=0.0)
    assert any('maskgen' in parameter for parameter, _ in model.named_parameters())


@pytest.mark.parametrize('path', [p for p in FILES if '_pre_' in p.stem], ids=stem)
def test_a_pretrained_backbone_learns_at_a_tenth_of_the_rate_and_its_gates_at_half(path):
    cfg = Config.fromfile(path)
    model = build_model(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(p): group['lr'] for group in optimizer.param_groups for p in group['params']}
    lr = cfg.optim_wrapper.optimizer.lr
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            share = 0.5 if 'maskgen' in name else 0.1 if name.startswith('backbone.') else 1.0
            assert rates[id(parameter)] == pytest.approx(share * lr), name


def test_a_pretrained_flgc_backbone_keeps_its_groups():
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_flgc-mbv2-pre_fpn_4e_coco-person.py')
    model = build_model(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(p): group['lr'] for group in optimizer.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        assert (rates[id(parameter)] == 0) == name.endswith(('channel_logits', 'filter_logits'))


def test_whole_means_neck_and_head(case):
    name, _, model = case
    parts = {
        module_name.split('.')[0]
        for module_name, module in model.named_modules()
        if isinstance(module, GroupedLayer)
    }
    method = method_and_host(name)[0]
    if '_whole_' in name:
        head = 'bbox_head' if name.startswith('retinanet') else 'rpn_head'
        assert parts >= {'backbone', 'neck', head}
        has_boxes = method == 'sgc' or '_distill_' in name
        assert ('roi_head' in parts) == (name.startswith('faster') and has_boxes)
    else:
        assert parts == ({'backbone'} if method else set())


def test_batch_of_the_1x_schedule_is_two_on_each_of_eight_gpus(case):
    name, cfg, _ = case
    if '1x_coco' not in name:
        pytest.skip('not of the 1x schedule')
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_cfg.max_epochs == 12


def test_steps_and_predicts(case):
    model = case[2]
    head = getattr(model, 'bbox_head', None) or model.roi_head.bbox_head
    shapes = [(3, 64, 96), (3, 96, 64)]
    classes = max(head.num_classes, 2)  # it draws from 1 ... classes - 1
    packed = demo_mm_inputs(2, image_shapes=shapes, num_classes=classes)
    for sample in packed['data_samples']:
        sample.gt_instances.labels %= head.num_classes
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-9))
    losses = model.train().train_step(packed, optimizer)
    assert torch.isfinite(losses['loss'])
    with torch.no_grad():
        predictions = model.eval().test_step(packed)
    assert [len(sample.pred_instances.bboxes) <= 100 for sample in predictions] == [True, True]


def test_data_root_follows_the_environment(monkeypatch):
    monkeypatch.setenv('MMDET_GROUPCONV_DATA', '/elsewhere')
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_msgc-r18_fpn_12e_bccd.py')
    assert cfg.train_dataloader.dataset.data_root == '/elsewhere/bccd/'


@pytest.mark.parametrize('detector', ['retinanet', 'faster-rcnn'])
@pytest.mark.parametrize('method', ['msgc', 'dgc', 'flgc', 'sgc'])
@pytest.mark.parametrize('host', ['r18', 'r50', 'mbv2'])
def test_all_combinations_are_there(detector, method, host):
    names = {path.stem for path in FILES}
    if host != 'r50':
        assert f'{detector}_{host}_fpn_4e_coco-person' in names
        assert f'{detector}_{method}-{host}_fpn_4e_coco-person' in names
    assert f'{detector}_{host}_fpn_1x_coco' in names
    assert f'{detector}_{method}-{host}_fpn_1x_coco' in names
    assert f'{detector}_{method}-{host}_fpn_whole_1x_coco' in names


def random_saliencies(net, pooled):
    """A fresh network's overflow within 50 layers, as its norms have seen no data."""
    return torch.rand(pooled.size(0), net.fc2.out_channels, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize('path', WHOLE, ids=stem)
def test_whole_detectors_end_at_half_of_the_macs(path, monkeypatch):
    method = method_and_host(path.stem)[0]
    if method == 'msgc':
        pytest.skip('its gates are held to the budget by training')
    monkeypatch.setattr(SaliencyNet, 'decide', random_saliencies)
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, DGCConv2d):
            module.set_progress(1)
        elif isinstance(module, SelfGrouping):
            percentage = list(cfg.custom_hooks[0]['steps'].values())[-1]
            module.mask.copy_(torch.rand_like(module.mask) > percentage / 100)
        assert not isinstance(module, MSGCConv2d)
    report = count_macs(model, (800, 1344), torch.randn(1, 3, 800, 1344))
    assert report.ratio == pytest.approx(0.5, abs=0.02)
