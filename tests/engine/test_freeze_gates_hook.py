"""Gates that are frozen while a tiny MSGC RetinaNet trains."""

import pytest
import torch
from mmengine.runner import Runner

from mmdet_groupconv.engine import FreezeGatesHook
from mmdet_groupconv.layers import MaskGenerator


@pytest.fixture
def cfg(repeatable_cfg):
    """2 epochs of 2 iterations, gates that differ by image and are frozen before the third."""
    repeatable_cfg.custom_hooks = [
        dict(type='MACBudgetHook', target=0.5, stop=0.25, settle=0.0),
        dict(type='FreezeGatesHook', at=0.5, batches=2),
    ]
    repeatable_cfg.train_cfg.max_epochs = 2
    repeatable_cfg.train_dataloader.dataset.num_images = 4
    return repeatable_cfg


def generators(model):
    return [m for m in model.modules() if isinstance(m, MaskGenerator)]


def masks(model):
    """Of images that differ, whether gates are held; and those of one."""
    pooled = {m: torch.randn(3, m.conv[0].in_channels, 1, 1) for m in generators(model)}
    found = [(m.eval()(pooled[m]), m.train())[0] for m in generators(model)]
    same = all((of_images == of_images[:1]).all() for of_images in found)
    return same, [of_images[0].clone() for of_images in found]


def test_gates_are_the_same_for_every_image_from_then_on(cfg, train):
    torch.manual_seed(0)
    runner, seen = train(cfg, masks)
    assert [same for same, _ in seen] == [False, False, True, True]
    for one, other in zip(seen[2][1], seen[3][1], strict=True):
        assert torch.equal(one, other)
    assert all(m.held is not None for m in generators(runner.model))
    assert any(0 < mask.mean() < 1 for mask in seen[3][1])


def test_weights_train_on(cfg, train):
    weights = []

    def note(model):
        weights.append(model.backbone.layer1[0].conv2.weight.detach().clone())

    train(cfg, note)
    assert not torch.equal(weights[2], weights[3])


def test_a_resumed_run_goes_on_as_it_was(cfg, train):
    cfg.custom_hooks[1].at = 0.25  # in the first epoch
    whole, _ = train(cfg, masks)
    resumed, _ = train(cfg, masks, resume=True, load_from=f'{whole.work_dir}/epoch_1.pth')
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key


def test_a_model_without_gates_by_image_is_refused(cfg):
    cfg.model.backbone.type = 'ResNet'
    cfg.custom_hooks = [dict(type='FreezeGatesHook')]
    with pytest.raises(ValueError, match='RetinaNet has no gates of MSGC, expected some'):
        Runner.from_cfg(cfg).train()


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (dict(at=1.5), 'at=1.5 of FreezeGatesHook'),
        (dict(keep=-1), 'keep=-1 of FreezeGatesHook'),
        (dict(batches=0), 'batches=0 of FreezeGatesHook'),
    ],
)
def test_numbers_out_of_range_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        FreezeGatesHook(**arguments)
