"""DGC's schedule and loss, on a tiny RetinaNet."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import Runner

from mmdet_groupconv.checkpoints import read_state_dict
from mmdet_groupconv.engine import DGCScheduleHook
from mmdet_groupconv.layers import DGCConv2d, SaliencyNet


@pytest.fixture
def cfg(repeatable_cfg):
    """2 epochs of 2 iterations."""
    repeatable_cfg.model.backbone.type = 'DGCResNet'
    repeatable_cfg.custom_hooks = [dict(type='DGCScheduleHook')]
    repeatable_cfg.train_cfg.max_epochs = 2
    repeatable_cfg.train_dataloader.dataset.num_images = 4
    return repeatable_cfg


def inactive(model):
    return {
        name: (module.in_channels, int(module.inactive))
        for name, module in model.named_modules()
        if isinstance(module, DGCConv2d)
    }


def test_progress_is_that_of_the_whole_run_also_when_resumed(cfg, train, scalars):
    whole, seen = train(cfg, inactive)
    assert len(seen[0]) == 19  # 16 convolutions, 3 shortcuts
    # gate_factor 0.45; progress 0, 1/4, 2/4, 3/4; the formula of section 4, between 1/12 and 3/4.
    for progress, layers in zip((0, 1 / 4, 2 / 4, 3 / 4), seen, strict=True):
        share = 1.5 * (progress - 1 / 12) if progress else 0
        for channels, count in layers.values():
            assert count == round(channels * 0.55 * share)
    ratios = scalars(whole, 'train/mac_ratio')
    assert ratios[0] > ratios[1] > ratios[2] > ratios[3]
    assert scalars(whole, 'val/mac_ratio') + scalars(whole, 'val/mac_ratio_detector')

    path = f'{whole.work_dir}/epoch_1.pth'
    state = read_state_dict(path)
    assert {name: int(state[f'{name}.inactive']) for name in seen[1]} == {
        name: count for name, (_, count) in seen[1].items()
    }

    resumed, seen_again = train(cfg, inactive, resume=True, load_from=path)
    assert seen_again == seen[2:]
    for key in ('train/loss_saliency', 'train/loss', 'train/mac_ratio'):
        assert scalars(resumed, key)[-2:] == scalars(whole, key)[-2:]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key


def test_channels_may_be_dropped_early_with_time_to_mend(cfg, train):
    cfg.custom_hooks[0].update(start=0.0, stop=0.5)
    _, seen = train(cfg, inactive)
    # gate_factor 0.45; progress 0, 1/4, 2/4, 3/4
    for share, layers in zip((0, 0.5, 1, 1), seen, strict=True):
        for channels, count in layers.values():
            assert count == round(channels * 0.55 * share)


def test_layers_may_have_factors_of_their_own(cfg, train):
    name = 'backbone.layer2.0.conv1'
    cfg.custom_hooks[0].update(start=0.0, stop=0.5, gate_factors={name: 0.25})
    _, seen = train(cfg, inactive)
    for layer, (channels, count) in seen[-1].items():
        assert count == round(channels * (0.75 if layer == name else 0.55))


def test_a_factor_of_a_layer_that_is_none_is_refused(cfg):
    hook = DGCScheduleHook(gate_factors={'backbone.layer9': 0.5})
    with pytest.raises(ValueError, match=r"gate_factors has 'backbone\.layer9', expected names"):
        hook.check(MODELS.build(cfg.model))


def test_a_factor_out_of_range_is_refused():
    expected = r"gate_factors\['a'\]=0 of DGCScheduleHook, expected a share in \(0, 1\]"
    with pytest.raises(ValueError, match=expected):
        DGCScheduleHook(gate_factors=dict(a=0))


@pytest.mark.parametrize('with_cp', [False, True])
def test_the_loss_is_the_sum_of_mean_saliencies(cfg, with_cp):
    cfg.model.backbone.with_cp = with_cp
    cfg.model.neck.conv_cfg = dict(type='DGCConv2d', heads=2, pre_norm=False)
    runner = Runner.from_cfg(cfg)
    runner.call_hook('before_run')
    model, saliencies = runner.model.train(), []
    nets = {name: net for name, net in model.named_modules() if isinstance(net, SaliencyNet)}
    assert {name.split('.')[0] for name in nets} == {'backbone', 'neck'}
    for net in nets.values():
        net.register_forward_hook(lambda module, args, output: saliencies.append(output))
    data = model.data_preprocessor(next(iter(runner.train_dataloader)), training=True)
    loss = model(**data, mode='loss')['loss_saliency']
    means = [float(head.mean()) for saliency in saliencies for head in saliency.detach().unbind(1)]
    expected = 1e-5 * sum(means)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(net.fc2.bias.grad.abs().sum() > 0 for net in nets.values())


def test_frozen_layers_add_nothing(cfg):
    cfg.model.backbone.frozen_stages = 2
    runner = Runner.from_cfg(cfg)
    runner.call_hook('before_run')
    data = runner.model.data_preprocessor(next(iter(runner.train_dataloader)), training=True)
    runner.model.train()(**data, mode='loss')['loss_saliency'].backward()
    fed = {n.split('.')[1] for n, p in runner.model.named_parameters() if p.grad is not None}
    assert fed == {'layer3', 'layer4'}


def test_a_backbone_that_is_frozen_altogether_trains_on(cfg, train):
    cfg.model.backbone.frozen_stages = 4
    runner, seen = train(cfg)
    assert len(seen) == 4
    assert 'train/loss_saliency' not in runner.message_hub.log_scalars


def test_a_model_without_dgc_layers_is_refused(cfg, train):
    cfg.model.backbone.type = 'MSGCResNet'
    with pytest.raises(ValueError, match='DGCScheduleHook: RetinaNet has no DGC layers'):
        train(cfg)


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (dict(weight=-1), 'weight=-1'),
        (dict(start=-0.1), 'start=-0.1 of DGCScheduleHook'),
        (dict(start=0.6, stop=0.5), 'stop=0.5 of DGCScheduleHook, .* from start=0.6'),
        (dict(stop=1.1), 'stop=1.1'),
    ],
)
def test_numbers_out_of_range_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        DGCScheduleHook(**arguments)
