"""The hooks of the tools' runner."""

from pathlib import Path

import pytest
from mmengine.hooks import CheckpointHook
from mmengine.hub import get_config
from mmengine.registry import HOOKS
from torch import nn

from mmdet_groupconv.engine import MACBudgetHook, WholeCheckpointHook
from mmdet_groupconv.engine.launch import build_model, build_runner, drop_gate_hooks
from mmdet_groupconv.engine.model_check import check_maps


@HOOKS.register_module()
class OwnCheckpointHook(CheckpointHook):
    """A user's."""


@pytest.mark.parametrize(
    ('default', 'custom', 'expected'),
    [
        ({}, [], [WholeCheckpointHook]),
        (dict(checkpoint=dict(type='CheckpointHook')), [], [WholeCheckpointHook]),
        (dict(checkpoint=None), [], []),
        (dict(checkpoint=None), ['CheckpointHook'], [WholeCheckpointHook]),
        (dict(checkpoint=dict(type='OwnCheckpointHook')), [], [OwnCheckpointHook]),
    ],
)
def test_checkpoints_are_written_whole_unless_a_user_s_hook_does(
    tiny_cfg, default, custom, expected
):
    tiny_cfg.launcher = 'none'
    tiny_cfg.default_hooks = default
    tiny_cfg.custom_hooks = [dict(type=name) for name in custom]
    runner = build_runner(tiny_cfg, ('train',))
    hooks = [type(hook) for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    assert hooks == expected


@HOOKS.register_module()
class OwnBudgetHook(MACBudgetHook):
    """A user's, with gates to read."""


def test_hooks_that_read_gates_are_dropped_and_others_stay(tiny_cfg):
    kinds = ['MACRatioHook', 'GatePicturesHook', 'EMAHook', OwnBudgetHook, 'SelfGroupingHook']
    tiny_cfg.custom_hooks = [dict(type=kind) for kind in kinds]
    drop_gate_hooks(tiny_cfg)
    assert [hook.type for hook in tiny_cfg.custom_hooks] == ['EMAHook']


def test_the_settings_of_a_checkpoint_hook_stay(tiny_cfg):
    tiny_cfg.launcher = 'none'
    tiny_cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=3, max_keep_ckpts=2)
    runner = build_runner(tiny_cfg, ('train',))
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, WholeCheckpointHook))
    assert (hook.interval, hook.max_keep_ckpts) == (3, 2)


def test_learning_rates_of_single_parameters_go_to_the_log_file_alone(tiny_cfg, capsys):
    tiny_cfg.launcher = 'none'
    runner = build_runner(tiny_cfg, ('train',))
    runner.train()
    words = 'paramwise_options -- backbone.'
    assert words in Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    printed = capsys.readouterr()
    assert words not in printed.out + printed.err


def test_building_a_model_leaves_its_config_as_it_is():
    cfg = get_config('mmdet::detr/detr_r50_8xb2-150e_coco.py')  # whose head makes a tensor of one
    before = cfg.to_dict()
    build_model(cfg)
    assert cfg.to_dict() == before


def test_without_settings_each_epoch_is_saved(tiny_cfg):
    tiny_cfg.launcher = 'none'
    tiny_cfg.default_hooks = None
    runner = build_runner(tiny_cfg, ('train',))
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, WholeCheckpointHook))
    assert (hook.interval, hook.by_epoch) == (1, True)


def test_a_neck_that_cannot_read_the_backbone_s_maps_is_named(tiny_cfg):
    tiny_cfg.launcher = 'none'
    tiny_cfg.model.neck.in_channels = [8, 16, 32]
    message = r'FPN has in_channels=\[8, 16, 32\], .* MSGCResNet returns: \[8, 16, 32, 64\]'
    with pytest.raises(ValueError, match=message):
        build_runner(tiny_cfg, ('train',))
    assert not Path(tiny_cfg.work_dir).exists()


@pytest.mark.parametrize('in_channels', [[8], 8, None])
def test_parts_that_take_no_small_image_are_left_to_the_run(in_channels):
    class Part(nn.Module):
        def forward(self, x):
            raise RuntimeError('too small')

    model = nn.Module()
    model.backbone, model.neck = nn.Sequential(nn.Conv2d(3, 8, 1), Part()), Part()
    model.neck.in_channels = in_channels
    check_maps(model)
    model.backbone = nn.Conv2d(3, 8, 1)
    model.backbone.forward = lambda x: (x.new_zeros(1, 8, 2, 2),)
    check_maps(model)
