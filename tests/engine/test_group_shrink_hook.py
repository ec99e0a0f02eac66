"""What crosses groups, shrunk over a run of a tiny RetinaNet."""

import pytest
import torch

from mmdet_groupconv.engine import GroupShrinkHook
from mmdet_groupconv.layers import StaticGrouping


@pytest.fixture
def cfg(repeatable_cfg):
    """2 epochs of 2 iterations."""
    repeatable_cfg.model.backbone = dict(
        type='FixedGroupResNet', depth=18, base_channels=8, groups=2, norm_eval=False
    )
    repeatable_cfg.custom_hooks = [dict(type='GroupShrinkHook', stop=0.5)]
    repeatable_cfg.train_cfg.max_epochs = 2
    repeatable_cfg.train_dataloader.dataset.num_images = 4
    return repeatable_cfg


def leaks(model):
    return {module.leak for module in model.modules() if isinstance(module, StaticGrouping)}


def test_shrinks_over_the_whole_run_also_when_resumed(cfg, train, scalars):
    whole, seen = train(cfg, leaks)
    assert seen == [{1.0}, {0.5}, {0.0}, {0.0}]  # progress 0, 1/4, 2/4, 3/4
    ratios = scalars(whole, 'train/mac_ratio')
    assert ratios[0] > ratios[1] > ratios[2] == ratios[3]
    path = f'{whole.work_dir}/epoch_1.pth'
    resumed, seen_again = train(cfg, leaks, resume=True, load_from=path)
    assert seen_again == seen[2:]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key


def test_goes_down_from_start_to_stop():
    hook = GroupShrinkHook(start=0.2, stop=0.6)
    progress = (0, 0.2, 0.3, 0.5, 0.6, 1)
    assert [hook.leak_at(p) for p in progress] == pytest.approx([1, 1, 0.75, 0.25, 0, 0])
    assert GroupShrinkHook(start=0, stop=0).leak_at(0) == 0


def test_needs_layers_with_fixed_groups():
    with pytest.raises(ValueError, match='Conv2d has no layers with fixed groups'):
        GroupShrinkHook().check(torch.nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(start=-1), 'start=-1 of GroupShrinkHook, expected a share of the run'),
        (dict(start=0.5, stop=0.4), 'stop=0.4 of GroupShrinkHook'),
    ],
)
def test_numbers_out_of_range_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupShrinkHook(**arguments)
