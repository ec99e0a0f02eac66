"""Self-grouping while a tiny RetinaNet trains."""

import copy

import pytest
import torch

from mmdet_groupconv.checkpoints import read_state_dict
from mmdet_groupconv.engine import SelfGroupingHook, self_grouping_hook
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.engine.self_grouping import self_group, sgc_layers


@pytest.fixture
def cfg(repeatable_cfg):
    """4 epochs of 1 iteration."""
    repeatable_cfg.model.backbone.update(type='SGCResNet', groups=3)
    repeatable_cfg.train_cfg.max_epochs = 4
    repeatable_cfg.train_cfg.val_interval = 4
    repeatable_cfg.train_dataloader.dataset.num_images = 2
    return repeatable_cfg


def hook(steps, seed=0):
    return [dict(type='SelfGroupingHook', steps=steps, seed=seed)]


def masks(model):
    return {name: layer.mask.clone() for name, layer in sgc_layers(model).items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def grouped_by_hand(cfg, checkpoint, percentages, seed):
    model = build_model(copy.deepcopy(cfg))
    model.load_state_dict(read_state_dict(checkpoint))
    for layer in sgc_layers(model).values():
        for percentage in percentages:
            self_group(layer, percentage, seed)
    return masks(model)


def test_global_scheme_takes_all_steps_at_its_epoch(cfg, train, scalars):
    cfg.custom_hooks = hook({2: [20, 40, 60]}, seed=5)
    runner, seen = train(cfg, masks)
    assert len(seen[0]) == 16
    assert all(mask.all() for mask in (*seen[0].values(), *seen[1].values()))
    expected = grouped_by_hand(cfg, f'{runner.work_dir}/epoch_2.pth', (20, 40, 60), seed=5)
    assert same(seen[2], expected)
    assert same(seen[3], seen[2])
    connections = sum(mask.sum() for mask in seen[2].values())
    total = sum(mask.numel() for mask in seen[2].values())
    assert float(connections / total) == pytest.approx(0.4, abs=0.05)
    ratios = scalars(runner, 'train/mac_ratio')
    assert ratios[0] == ratios[1] == 1 > ratios[2] == ratios[3]
    assert scalars(runner, 'val/mac_ratio') == pytest.approx(ratios[3:])


def test_local_and_global_scheme_fine_tunes_between_steps_also_when_resumed(cfg, train):
    cfg.custom_hooks = hook({1: 20, 2: 40, 3: 60})
    whole, seen = train(cfg, masks)
    for epoch, percentage in ((1, 20), (2, 40), (3, 60)):
        checkpoint = f'{whole.work_dir}/epoch_{epoch}.pth'
        assert same(seen[epoch], grouped_by_hand(cfg, checkpoint, [percentage], seed=0))
    checkpoint = f'{whole.work_dir}/epoch_2.pth'
    state = read_state_dict(checkpoint)
    assert all(torch.equal(state[f'{name}.mask'], mask) for name, mask in seen[1].items())

    resumed, seen_again = train(cfg, masks, resume=True, load_from=checkpoint)
    assert [same(*pair) for pair in zip(seen[2:], seen_again, strict=True)] == [True, True]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key


def test_a_run_resumed_within_an_epoch_does_not_repeat_its_step(cfg, train, monkeypatch):
    cfg.custom_hooks = hook({0: [20, 40]})
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    cfg.train_dataloader.dataset.num_images = 4
    cfg.default_hooks.checkpoint.update(by_epoch=False)
    steps = []

    def recording(layer, percentage, seed):
        steps.append(percentage)
        self_group(layer, percentage, seed)

    monkeypatch.setattr(self_grouping_hook, 'self_group', recording)
    whole, seen = train(cfg, masks)
    assert steps == [20] * 16 + [40] * 16
    steps.clear()
    _, seen_again = train(cfg, masks, resume=True, load_from=f'{whole.work_dir}/iter_1.pth')
    assert steps == []
    assert same(seen_again[0], seen[1])
    train(cfg, load_from=f'{whole.work_dir}/iter_1.pth')  # a new run takes its own steps
    assert steps == [20] * 16 + [40] * 16


def test_what_was_pruned_stays_so_under_the_optimizer(cfg, train):
    cfg.custom_hooks = hook({0: 60})
    runner, seen = train(cfg, masks)
    assert all(same(later, seen[0]) for later in seen)
    backbone = runner.model.eval().backbone
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = backbone(images)
        for layer in sgc_layers(backbone).values():
            layer.weight[layer.mask == 0] = 1e3
        after = backbone(images)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize('steps', [{2: 10}, {'1': 10, '7': 20}, {-1: 10}])
def test_steps_that_would_never_come_are_refused_before_any_iteration(cfg, train, steps):
    cfg.custom_hooks = hook(steps)
    cfg.train_cfg.max_epochs = 2
    iterations = []
    late = next(int(epoch) for epoch in steps if int(epoch) not in (0, 1))
    message = f'at epoch {late}, expected 0 to 1, as this EpochBasedTrainLoop counts epochs'
    with pytest.raises(ValueError, match=message):
        train(cfg, iterations.append)
    assert iterations == []


def test_a_loop_without_epochs_is_named(cfg, train):
    cfg.custom_hooks = hook({0: 10, 1: 20})
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    message = 'at epoch 1, expected 0 to 0, as this IterBasedTrainLoop counts epochs'
    with pytest.raises(ValueError, match=message):
        train(cfg)


@pytest.mark.parametrize(
    'steps',
    [{}, {0: []}, {1: 20, 2: 10}, {1: 20, 2: 20}, {2: 10, 1: 20}, {1: [20, 10]}, {1: 0}, {1: 100}],
)
def test_percentages_that_do_not_rise_are_refused(steps):
    with pytest.raises(ValueError, match='expected percentages that rise from epoch to epoch'):
        SelfGroupingHook(steps)


def test_a_model_without_self_grouping_layers_is_refused(cfg, train):
    cfg.custom_hooks = hook({0: 10})
    cfg.model.backbone = dict(cfg.model.backbone, type='FLGCResNet')
    with pytest.raises(ValueError, match='SelfGroupingHook: RetinaNet has no SGC layers'):
        train(cfg)
