"""The hook on a real runner: a tiny MSGC RetinaNet on synthetic scenes."""

import copy
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from mmdet_groupconv.engine import MACBudgetHook
from mmdet_groupconv.layers import MaskGenerator
from mmdet_groupconv.macs import MacMeter


def test_target_falls_linearly_from_one_and_then_stays():
    hook = MACBudgetHook(target=0.5, start=0.2, stop=0.6)
    # Halfway between start and stop, half of the way from 1 to 0.5 is done.
    expected = {0.0: 1.0, 0.2: 1.0, 0.4: 0.75, 0.6: 0.5, 1.0: 0.5}
    assert {p: hook.target_at(p) for p in expected} == pytest.approx(expected)


def test_a_budget_without_schedule_holds_from_the_first_iteration():
    assert MACBudgetHook(target=0.4, start=0.0, stop=0.0).target_at(0.0) == 0.4


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (dict(target=0.0), 'target=0.0'),
        (dict(target=1.5), 'target=1.5'),
        (dict(weight=-1.0), 'weight=-1.0'),
        (dict(start=0.6, stop=0.5), 'stop=0.5 of MACBudgetHook, .* from start=0.6'),
        (dict(stop=1.1), 'stop=1.1'),
        (dict(settle=-0.1), 'settle=-0.1'),
        (dict(slack=0.0), 'slack=0.0 of MACBudgetHook'),
        (dict(scope='neck'), "scope='neck' of MACBudgetHook, expected 'backbone' or 'detector'"),
    ],
)
def test_numbers_out_of_range_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        MACBudgetHook(**arguments)


def noise(model):
    return {m.noise for m in model.modules() if isinstance(m, MaskGenerator)}


@pytest.mark.parametrize(
    ('arguments', 'amplitudes'),
    # 4 iterations: progress 0, 1/4, 2/4, 3/4
    [
        ({}, [1, 1, 1, 1]),  # as published
        (dict(settle=0.5), [1, 1, 0, 0]),
        (dict(settle=0.0), [0, 0, 0, 0]),
    ],
    ids=str,
)
def test_noise_goes_as_gates_settle(tiny_cfg, train, arguments, amplitudes):
    tiny_cfg.custom_hooks[0].update(arguments)
    _, seen = train(tiny_cfg, noise)
    assert [value for values in seen for value in values] == pytest.approx(amplitudes)


def test_resumed_run_goes_on_with_the_noise_where_it_was(repeatable_cfg, train, scalars):
    cfg = repeatable_cfg
    cfg.custom_hooks[0].settle = 0.8
    cfg.custom_hooks.append(dict(type='EpochSeedHook', priority='HIGH'))
    cfg.train_cfg.max_epochs = 2
    cfg.train_dataloader.dataset.num_images = 4
    whole, seen = train(cfg, noise)
    path = f'{whole.work_dir}/epoch_1.pth'
    resumed, seen_again = train(cfg, noise, resume=True, load_from=path)
    assert seen_again == seen[2:]
    for key in ('train/mac_ratio', 'train/loss_macs', 'train/loss'):
        assert scalars(resumed, key)[-2:] == scalars(whole, key)[-2:]


def test_a_dense_backbone_is_refused(tiny_cfg):
    tiny_cfg.model.backbone.type = 'ResNet'
    with pytest.raises(ValueError, match='ResNet has no gated convolutions'):
        Runner.from_cfg(tiny_cfg).train()


def test_the_scope_says_whose_ratio_is_held(tiny_cfg):
    tiny_cfg.model.neck.conv_cfg = dict(type='MSGCConv2d')
    tiny_cfg.custom_hooks[0].update(scope='detector', target=0.3, start=0.0, stop=0.0)
    runner = Runner.from_cfg(tiny_cfg)
    runner.train()
    ratios = scalars(runner, 'train/mac_ratio_detector')
    assert ratios != scalars(runner, 'train/mac_ratio')
    expected = [30 * (ratio - 0.3) for ratio in ratios]
    assert scalars(runner, 'train/loss_macs') == pytest.approx(expected, rel=1e-5)


def test_a_dense_backbone_will_do_where_the_head_is_gated(tiny_cfg):
    tiny_cfg.model.backbone.type = 'ResNet'
    tiny_cfg.model.neck.conv_cfg = dict(type='MSGCConv2d')
    tiny_cfg.custom_hooks[0].scope = 'detector'
    runner = Runner.from_cfg(tiny_cfg)
    runner.train()
    assert scalars(runner, 'train/mac_ratio') == [1.0] * 4
    assert scalars(runner, 'train/mac_ratio_detector')[0] != 1  # small: gate nets cost as much


def test_gradient_accumulation_keeps_the_budget(tiny_cfg):
    tiny_cfg.optim_wrapper.accumulative_counts = 2
    runner = Runner.from_cfg(tiny_cfg)
    before = {name: value.clone() for name, value in runner.model.named_parameters()}
    runner.train()
    moved = [
        name
        for name, value in runner.model.named_parameters()
        if name.endswith('maskgen2.conv.3.bias') and not torch.equal(value, before[name])
    ]
    assert len(moved) == 8  # one a block of ResNet-18
    assert len(scalars(runner, 'train/mac_ratio')) == 4


def test_mixed_precision_keeps_the_budget_in_float32(tiny_cfg):
    runner = Runner.from_cfg(tiny_cfg)
    model = runner.model
    runner.call_hook('before_run')
    next(hook for hook in runner.hooks if isinstance(hook, MACBudgetHook)).target_now = 0.5
    data = model.data_preprocessor(next(iter(runner.train_dataloader)), training=True)
    model.train()
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(**data, mode='loss')
    assert losses['loss_macs'].dtype == torch.float32
    # All gates start open with probability sigmoid(2) = 0.88.
    assert 0.8 < float(losses['mac_ratio']) < 1.0
    losses['loss_macs'].backward()
    gradients = [
        parameter.grad
        for name, parameter in model.named_parameters()
        if name.endswith('maskgen2.conv.3.bias')
    ]
    assert all(gradient.isfinite().all() and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.fixture
def trained(tiny_cfg):
    runner = Runner.from_cfg(tiny_cfg)
    runner.train()
    return runner


def scalars(runner, key):
    return [float(value) for value in runner.message_hub.get_scalar(key).data[0]]


def test_loss_is_the_weighted_excess_over_the_target(trained):
    ratios, targets = scalars(trained, 'train/mac_ratio'), scalars(trained, 'train/mac_target')
    # 4 iterations; target 0.5 from start 0 to stop 0.5: progress 0, 1/4, 2/4, 3/4.
    assert targets == pytest.approx([1.0, 0.75, 0.5, 0.5])
    expected = [30 * max(0, r - t) for r, t in zip(ratios, targets, strict=True)]
    assert scalars(trained, 'train/loss_macs') == pytest.approx(expected, rel=1e-5)
    assert sum(expected) > 0


def test_with_slack_what_lags_is_pushed_harder(tiny_cfg):
    tiny_cfg.custom_hooks[0].slack = 0.1
    runner = Runner.from_cfg(tiny_cfg)
    runner.train()
    ratios, targets = (scalars(runner, f'train/{key}') for key in ('mac_ratio', 'mac_target'))
    excess = [max(0, r - t) for r, t in zip(ratios, targets, strict=True)]
    expected = [30 * e * (1 + e / 0.1) for e in excess]
    assert scalars(runner, 'train/loss_macs') == pytest.approx(expected, rel=1e-5)
    assert sum(expected) > 0


@pytest.mark.parametrize(('iteration', 'loss'), [(4, 0.0), (5, 3.0)])
def test_gates_that_have_settled_are_held_from_below_too(iteration, loss):
    hook = MACBudgetHook(0.5, settle=0.5, stop=0.2)
    hook.before_train_iter(SimpleNamespace(iter=iteration, max_iters=10, message_hub=Mock()), 0)
    macs = SimpleNamespace(part=lambda name: SimpleNamespace(ratio=torch.tensor(0.4)))
    assert float(hook.losses(macs)['loss_macs']) == pytest.approx(loss)


def test_validation_reports_the_ratio_over_its_images(trained):
    model, ratios = trained.model.eval(), []
    with MacMeter(model.backbone) as meter, torch.no_grad():
        for batch in trained.val_dataloader:
            model.val_step(batch)
            ratios.append(float(meter.take().ratio))
    reported = trained.message_hub.get_scalar('val/mac_ratio').current()
    assert reported == pytest.approx(sum(ratios) / len(ratios))


@pytest.mark.parametrize('target', [0.3, 0.99])
def test_a_run_that_ends_above_its_target_says_so(tiny_cfg, target, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: said.append(str(text)))
    tiny_cfg.custom_hooks[0].target = target
    runner = Runner.from_cfg(tiny_cfg)
    runner.train()
    ratio = runner.message_hub.get_scalar('val/mac_ratio').current()
    expected = f'mac_ratio ended at {ratio:.3f}, target {target}'
    assert any(expected in text for text in said) == (target == 0.3)


def test_the_model_is_left_without_hooks(trained):
    hooks = [
        hooks
        for module in trained.model.modules()
        for hooks in (
            module._forward_hooks,
            module._forward_pre_hooks,
            getattr(module, '_gate_hooks', {}),
        )
    ]
    assert not any(hooks)


def test_checkpointed_blocks_count_once(tiny_cfg, train):
    checkpointed = copy.deepcopy(tiny_cfg)
    checkpointed.model.backbone.with_cp = True
    ratios = [scalars(train(cfg)[0], 'train/mac_ratio') for cfg in (tiny_cfg, checkpointed)]
    assert ratios[0] == pytest.approx(ratios[1])


def test_resumed_run_goes_on_with_the_target_where_it_was(tiny_cfg):
    hook = MACBudgetHook(target=0.5)
    logged = {}
    hub = SimpleNamespace(update_scalar=logged.__setitem__)
    hook.before_train_iter(SimpleNamespace(iter=100, max_iters=400, message_hub=hub), 0)
    assert logged == {'train/mac_target': pytest.approx(0.75)}


def test_test_metrics_hold_the_ratio(tiny_cfg):
    metrics = Runner.from_cfg(tiny_cfg).test()
    assert 0.5 < metrics['mac_ratio'] < 1.1


@pytest.fixture
def grouped_neck_cfg(tiny_cfg):
    """Gates in the neck alone."""
    tiny_cfg.model.backbone.type = 'ResNet'
    tiny_cfg.model.neck.conv_cfg = dict(type='MSGCConv2d', heads=2)
    tiny_cfg.custom_hooks[0].scope = 'detector'
    return tiny_cfg


def test_the_detector_s_budget_moves_the_neck_s_gates(grouped_neck_cfg):
    runner = Runner.from_cfg(grouped_neck_cfg)
    runner.call_hook('before_run')
    data = runner.model.data_preprocessor(next(iter(runner.train_dataloader)), training=True)
    next(hook for hook in runner.hooks if isinstance(hook, MACBudgetHook)).target_now = 0.5
    runner.model(**data, mode='loss')['loss_macs'].backward()
    moved = {n for n, p in runner.model.named_parameters() if p.grad is not None and p.grad.any()}
    gates = {n for n, _ in runner.model.named_parameters() if n.endswith('maskgen.conv.3.bias')}
    assert gates
    assert {name.split('.')[0] for name in gates} == {'neck'}
    assert gates <= moved


def test_a_backbone_s_budget_needs_gates_in_the_backbone(grouped_neck_cfg, train):
    grouped_neck_cfg.custom_hooks[0].scope = 'backbone'
    with pytest.raises(ValueError, match='the backbone ResNet has no gated convolutions'):
        train(grouped_neck_cfg)


def test_a_dense_detector_is_refused(grouped_neck_cfg, train):
    del grouped_neck_cfg.model.neck['conv_cfg']
    with pytest.raises(ValueError, match='the detector RetinaNet has no gated convolutions'):
        train(grouped_neck_cfg)


@pytest.mark.parametrize(('images', 'size'), [(3, 2), (7, 3), (2, 1)])
def test_epochs_that_end_with_an_image_alone_are_refused_at_once(tiny_cfg, images, size):
    tiny_cfg.train_dataloader.batch_size = size
    tiny_cfg.train_dataloader.dataset.num_images = images
    runner = Runner.from_cfg(tiny_cfg)
    with pytest.raises(ValueError, match=f'batch_size={size} .* 1 of {images} .*drop_last=True'):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize(
    ('loader', 'norm_eval'), [(dict(drop_last=True), False), (dict(drop_last=False), True)]
)
def test_not_where_it_is_dropped_or_norms_are_frozen(tiny_cfg, loader, norm_eval):
    tiny_cfg.train_dataloader.update(loader)
    tiny_cfg.train_dataloader.dataset.num_images = 3
    tiny_cfg.model.backbone.norm_eval = norm_eval
    runner = Runner.from_cfg(tiny_cfg)
    runner.train()
    assert runner.iter == (1 if loader['drop_last'] else 2)
