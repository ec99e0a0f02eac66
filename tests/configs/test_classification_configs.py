"""Every recipe for classifiers is what its name says, learns and predicts."""

import copy
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_groupconv.classification import ImageClassifier
from mmdet_groupconv.engine import MACBudgetHook, SelfGroupingHook
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.layers import GateNet, GroupedLayer, SaliencyNet

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FILES = sorted(p for folder in ('imagenet', 'cifar10') for p in CONFIGS.glob(f'{folder}/*.py'))
CLASSES = {'msgc': 'MSGC', 'dgc': 'DGC', 'flgc': 'FLGC', 'sgc': 'SGC', 'fixed': 'FixedGroup'}
HOOK_TYPES = {
    'msgc': 'MACBudgetHook',
    'dgc': 'DGCScheduleHook',
    'sgc': 'SelfGroupingHook',
    'flgc': 'MACRatioHook',
    'fixed': 'MACRatioHook',
    'dense': 'MACRatioHook',
}


class Recipe:
    """A config, what its name says, and its model without pretrained weights."""

    def __init__(self, path):
        self.name = path.stem
        self.cfg = Config.fromfile(path, format_python_code=False)
        method, host, form, rest = re.fullmatch(
            r'(\w+)-(r18|r50|mbv2)(-b16|-lg)?_(.+)', path.stem
        ).groups()
        self.method, self.host, self.form = method, host, form
        self.cifar, self.small = '_cifar10' in rest, rest.endswith('_cifar10')
        self.epochs = int(re.search(r'(\d+)e_', rest)[1])
        cfg = copy.deepcopy(self.cfg)
        cfg.model.backbone.init_cfg = cfg.model.fc_init_cfg = None
        torch.manual_seed(0)
        self.model = build_model(cfg)
        self.optimizer = build_optim_wrapper(self.model, cfg.optim_wrapper)

    def __repr__(self):
        return self.name

    @property
    def pretrained(self):
        return not self.cifar and self.method in ('msgc', 'sgc')

    def settings(self):
        """The optimizer's settings of each parameter, by name."""
        groups = {id(p): group for group in self.optimizer.param_groups for p in group['params']}
        return {name: groups[id(p)] for name, p in self.model.named_parameters()}

    def names_in(self, *types):
        """The names of parameters that belong to modules of these types."""
        return {
            f'{name}.{key}'
            for name, module in self.model.named_modules()
            if isinstance(module, types)
            for key, _ in module.named_parameters()
        }


@pytest.fixture(scope='module')
def recipes():
    return [Recipe(path) for path in FILES]


def test_all_combinations_are_there():
    names = {path.stem.split('_')[0] for path in FILES if path.parent.name == 'imagenet'}
    methods = ['dense', 'msgc', 'dgc', 'flgc', 'sgc']
    assert names == {f'{m}-{h}' for m in methods for h in ('r18', 'r50', 'mbv2')} | {'sgc-r50-lg'}
    names = {path.stem.split('_')[0] for path in FILES if path.parent.name == 'cifar10'}
    pairs = {f'{m}-{h}' for m in methods for h in ('r18-b16', 'mbv2')}
    assert names == pairs | {'fixed-r18-b16', 'dense-r18', 'msgc-r18'}


def test_name_tells_method_and_host(recipes):
    for recipe in recipes:
        model, method = recipe.model, recipe.method
        assert type(model) is ImageClassifier
        backbone = type(model.backbone).__name__
        if recipe.host == 'mbv2':
            assert backbone == f'{CLASSES.get(method, "Trimmed")}MobileNetV2'
            assert model.fc.in_features == 1280
            assert model.backbone.conv1.conv.stride == ((1, 1) if recipe.small else (2, 2))
        else:
            assert backbone == f'{CLASSES.get(method, "")}ResNet'
            assert model.backbone.depth == int(recipe.host[1:])
            assert model.backbone.base_channels == (16 if recipe.form == '-b16' else 64)
            assert model.backbone.conv1.kernel_size == ((3, 3) if recipe.small else (7, 7))
        assert model.fc.out_features == (10 if recipe.cifar else 1000)
        assert any(isinstance(m, GroupedLayer) for m in model.modules()) == (method != 'dense')
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        assert all(norm.training for norm in norms)  # norm_eval is a detector's


def test_name_tells_the_epochs_to_the_schedule_s_end(recipes):
    for recipe in recipes:
        assert recipe.cfg.train_cfg.max_epochs == recipe.epochs
        *_, last = recipe.cfg.param_scheduler
        if last.type == 'CosineAnnealingLR':
            assert last.T_max == recipe.epochs
        else:
            assert (recipe.epochs, last.milestones) == (90, [30, 60])


def test_batch_is_that_of_the_name(recipes):
    for recipe in recipes:
        loader = recipe.cfg.train_dataloader
        assert loader.batch_size == (128 if recipe.cifar else 32)
        assert recipe.cfg.auto_scale_lr.base_batch_size == (128 if recipe.cifar else 8 * 32)
        assert loader.drop_last  # gate nets' norms can't take a batch of one


def test_the_method_s_hook_comes_along(recipes):
    for recipe in recipes:
        (cfg,) = recipe.cfg.custom_hooks
        assert cfg.type == HOOK_TYPES[recipe.method]
        hook = HOOKS.build(copy.deepcopy(cfg))
        hook.check(recipe.model)
        if isinstance(hook, MACBudgetHook):
            of_resnets = dict(r18=0.5) if recipe.cifar else dict(r18=0.49, r50=0.457)
            assert (hook.target, hook.scope) == (
                {**of_resnets, 'mbv2': 0.65}[recipe.host],
                'backbone',
            )
        elif isinstance(hook, SelfGroupingHook):
            assert max(hook.steps) < recipe.epochs
            percentages = [step for steps in hook.steps.values() for step in steps]
            assert percentages == [10, 20, 30, 40, 50, *([] if recipe.cifar else [60])]
            assert (len(hook.steps) > 1) == (recipe.cifar or recipe.form == '-lg')


def test_dense_weights_are_where_the_papers_begin_with_them(recipes):
    for recipe in recipes:
        model = recipe.cfg.model
        backbone, fc = model.backbone.get('init_cfg'), model.get('fc_init_cfg')
        if not recipe.pretrained:
            assert (backbone, fc) == (None, None)
        elif recipe.host == 'mbv2':
            assert 'mobilenet_v2' in backbone.checkpoint
            assert backbone.checkpoint == fc.checkpoint
            assert (backbone.prefix, fc.prefix) == ('backbone.', 'head.fc.')
        else:
            file = f'torchvision://resnet{recipe.host[1:]}'
            assert (backbone.checkpoint, backbone.get('prefix')) == (file, None)
            assert (fc.checkpoint, fc.prefix) == (file, 'fc.')


def test_rates_are_the_papers(recipes):
    for recipe in recipes:
        optimizer = recipe.optimizer.optimizer
        assert type(optimizer) is torch.optim.SGD
        assert optimizer.defaults['nesterov']
        assert optimizer.defaults['momentum'] == 0.9
        rate = 0.05 if recipe.host == 'mbv2' else 0.1
        rate = {'msgc': 0.015, 'sgc': 0.01}.get(recipe.method, rate) if not recipe.cifar else 0.1
        if recipe.cifar and not recipe.small and recipe.method == 'msgc':
            rate = 0.03  # it goes on from the dense run
        settings = recipe.settings()
        nets = recipe.names_in(GateNet) - recipe.names_in(SaliencyNet)
        assert bool(nets) == (recipe.method == 'msgc')
        for name, group in settings.items():
            of_nets = 0.5 if recipe.small else 0.075
            assert group['lr'] == pytest.approx(of_nets if name in nets else rate), name


def test_what_has_no_weight_decay(recipes):
    for recipe in recipes:
        settings = recipe.settings()
        free = {name for name, group in settings.items() if group['weight_decay'] == 0}
        expected = recipe.names_in(_BatchNorm, GateNet)
        expected |= {name for name in settings if name.endswith('_logits')}
        if recipe.method == 'msgc' and not recipe.cifar:
            expected |= {'fc.weight', 'fc.bias'}
            expected |= {name for name in settings if name.endswith('.bias')}
        assert free == expected


def random_saliencies(net, pooled):
    """A fresh network's grow with the map that they multiply, and overflow in evaluation."""
    return torch.rand(pooled.size(0), net.fc2.out_channels, 1, 1)


def test_a_step_reaches_every_parameter(recipes, monkeypatch):
    """DDP works without find_unused_parameters."""
    for recipe in recipes:
        model = recipe.model.train()
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        for norm in norms:
            norm.momentum = 1.0  # else untrained norms let the prediction overflow
        torch.manual_seed(0)
        images, labels = torch.randint(0, 256, (4, 3, 32, 32)), torch.tensor([0, 3, 5, 9])
        batch = dict(inputs=images.byte(), data_samples=labels)
        before = model.fc.weight.detach().clone()
        losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
        loss, _ = model.parse_losses(losses)
        loss.backward()
        parameters = dict(model.named_parameters())
        assert [name for name, p in parameters.items() if p.grad is None] == []
        assert all(torch.isfinite(p.grad).all() for p in parameters.values())
        for norm in norms:
            norm.running_var.clamp_(min=0.01)
        with torch.no_grad(), monkeypatch.context() as patch:
            patch.setattr(SaliencyNet, 'decide', random_saliencies)
            scores = torch.stack(model.eval().test_step(batch))
        assert scores.shape == (4, 10 if recipe.cifar else 1000)
        torch.testing.assert_close(scores.sum(dim=1), torch.ones(4))
        recipe.optimizer.step()
        assert not torch.equal(model.fc.weight, before)
