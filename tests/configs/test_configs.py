"""Every detector's config file builds the model that its name says, learns and predicts."""

import copy
import itertools
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
    for folder in ('atss', 'demo', 'faster_rcnn', 'retinanet')
    for path in CONFIGS.glob(f'{folder}/*.py')
)
WHOLE = [path for path in FILES if '_whole_1x_coco' in path.stem]
METHODS = {'msgc': 'MSGC', 'dgc': 'DGC', 'flgc': 'FLGC', 'sgc': 'SGC', 'fixed': 'FixedGroup'}
DETECTORS, HOSTS = ('retinanet', 'faster-rcnn'), ('r18', 'r50', 'mbv2')
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


@pytest.fixture(scope='module')
def cfgs():
    """All configs by the names of their files."""
    return {path.stem: Config.fromfile(path, format_python_code=False) for path in FILES}


def test_names_tell_detectors_and_backbones(cfgs):
    detectors = {'atss': 'ATSS', 'retinanet': 'RetinaNet', 'faster-rcnn': 'FasterRCNN'}
    for name, cfg in cfgs.items():
        method, host = method_and_host(name)
        backbone = cfg.model.backbone
        assert cfg.model.type == detectors[name.split('_')[0]], name
        if host == 'mbv2':
            expected = f'{METHODS[method] if method else "Trimmed"}MobileNetV2'
            assert backbone.type == expected, name
        else:
            expected = f'{METHODS.get(method, "")}ResNet', int(host[1:])
            assert (backbone.type, backbone.depth) == expected, name


def test_the_method_s_hook_comes_along(cfgs):
    for name, cfg in cfgs.items():
        hooks = {hook.type: hook for hook in cfg.get('custom_hooks') or []}
        as_pretrained = '_dgc-mbv2-pre_' in name  # which drops what pretraining dropped
        method = method_and_host(name)[0] or 'dense'
        if '_distill_' in name:
            assert 'DistillationHook' in hooks, name  # the others: engine/test_grouped_config.py
        else:
            assert list(hooks) == ['MACRatioHook' if as_pretrained else HOOKS[method]], name
        if 'MACBudgetHook' in hooks:
            scope = 'detector' if '_whole_' in name else 'backbone'
            hook = hooks['MACBudgetHook']
            target = 0.457 if 'r50_fpn_pre' in name else 0.5
            assert (hook.target, hook.get('scope', 'backbone')) == (target, scope), name
            held = (hook.get('start'), hook.get('stop')) == (0.0, 0.0)
            assert held == ('_pre_' in name), name


def test_gate_nets_learn_at_five_times_the_rate_without_decay(cfgs):
    found = 0
    for name, cfg in cfgs.items():
        if method_and_host(name)[0] == 'msgc' and '_pre_' not in name:
            keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
            expected = dict(lr_mult=5.0, decay_mult=0.0)
            assert keys.maskgen == keys.attgen == expected, name
            found += 1
    assert found > 10


def test_batch_of_the_1x_schedule_is_two_on_each_of_eight_gpus(cfgs):
    found = 0
    for name, cfg in cfgs.items():
        if '1x_coco' in name:
            sizes = cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size
            assert (*sizes, cfg.train_cfg.max_epochs) == (2, 16, 12), name
            found += 1
    assert found > 70


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


@pytest.fixture(scope='module', params=[(d, h) for d in DETECTORS for h in HOSTS], ids='-'.join)
def models(request, cfgs):
    """The different networks of a detector and host, classes aside, by the name of a config."""
    detector, host = request.param
    found = {}
    for name, cfg in cfgs.items():
        if name.startswith(detector) and method_and_host(name)[1] == host:
            found.setdefault(repr(network(cfg.model)), name)
    return {name: cfgs[name] for name in found.values()}


def network(part):
    """A model's settings without its classes and where its weights come from."""
    if isinstance(part, dict):
        ours = part.keys() - {'num_classes', 'init_cfg'}
        return {key: network(part[key]) for key in sorted(ours)}
    return [network(item) for item in part] if isinstance(part, list | tuple) else part


def build(cfg):
    """The model, which looks at few regions."""
    cfg = copy.deepcopy(cfg)
    if 'roi_head' in cfg.model:
        cfg.model.train_cfg.rpn_proposal.max_per_img = 16
        cfg.model.train_cfg.rcnn.sampler.num = 16
        cfg.model.test_cfg.rpn.max_per_img = 16
    torch.manual_seed(0)
    return build_model(cfg)


def grouped_parts(model):
    """The names of the parts that hold grouped layers."""
    layers = (name for name, module in model.named_modules() if isinstance(module, GroupedLayer))
    return {name.split('.')[0] for name in layers}


def expected_parts(name):
    method = method_and_host(name)[0]
    if '_whole_' not in name:
        return {'backbone'} if method else set()
    if name.startswith('retinanet'):
        return {'backbone', 'neck', 'bbox_head'}
    has_boxes = method == 'sgc' or '_distill_' in name
    return {'backbone', 'neck', 'rpn_head'} | ({'roi_head'} if has_boxes else set())


def test_every_model_is_grouped_as_named_learns_and_predicts(models):
    """One test, since building takes as long as a step."""
    for name, cfg in models.items():
        model = build(cfg)
        assert grouped_parts(model) == expected_parts(name), name
        losses, predictions = step_and_predict(model)
        assert torch.isfinite(losses['loss']), name
        assert all(len(sample.pred_instances.bboxes) <= 100 for sample in predictions), name


def step_and_predict(model):
    head = getattr(model, 'bbox_head', None) or model.roi_head.bbox_head
    classes = max(head.num_classes, 2)  # it draws from 1 ... classes - 1
    packed = demo_mm_inputs(2, image_shapes=[(3, 48, 64), (3, 64, 48)], num_classes=classes)
    for sample in packed['data_samples']:
        sample.gt_instances.labels %= head.num_classes
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-9))
    losses = model.train().train_step(packed, optimizer)
    with torch.no_grad():
        return losses, model.eval().test_step(packed)


def test_data_root_follows_the_environment(monkeypatch):
    monkeypatch.setenv('MMDET_GROUPCONV_DATA', '/elsewhere')
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_msgc-r18_fpn_12e_bccd.py')
    assert cfg.train_dataloader.dataset.data_root == '/elsewhere/bccd/'


def test_all_combinations_are_there():
    names = {path.stem for path in FILES}
    for detector, method, host in itertools.product(DETECTORS, HOOKS.keys() - {'fixed'}, HOSTS):
        both = f'{detector}_{host}' if method == 'dense' else f'{detector}_{method}-{host}'
        expected = [f'{both}_fpn_1x_coco']
        expected += [f'{both}_fpn_4e_coco-person'] if host != 'r50' else []
        expected += [f'{both}_fpn_whole_1x_coco'] if method != 'dense' else []
        assert names >= set(expected)


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
