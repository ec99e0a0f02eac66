"""Mixed precision where there is no accelerator."""

import pytest
import torch
from torch import nn

from mmdet_groupconv.engine import CPUAmpOptimWrapper


def wrapped(model, **kwargs):
    return CPUAmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)


def test_forward_passes_run_in_bfloat16_and_only_they():
    model = nn.Conv2d(3, 4, 3)
    x = torch.randn(2, 3, 8, 8)
    with wrapped(model).optim_context(model):
        assert model(x).dtype == torch.bfloat16
    assert model(x).dtype == torch.float32


def test_weights_stay_in_float32_and_learn():
    model = nn.Linear(3, 4)
    before = model.weight.detach().clone()
    wrapper = wrapped(model, clip_grad=dict(max_norm=1.0))
    with wrapper.optim_context(model):
        loss = model(torch.ones(2, 3)).float().pow(2).mean()
    wrapper.update_params(loss)
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)


def test_a_run_loses_as_in_float32(repeatable_cfg, train, scalars):
    for loader in (repeatable_cfg.train_dataloader, repeatable_cfg.val_dataloader):
        loader.dataset.image_size = 128  # PyTorch's bfloat16 errs on RetinaNet's levels of 64
    full, _ = train(repeatable_cfg)
    repeatable_cfg.optim_wrapper.type = 'CPUAmpOptimWrapper'
    mixed, _ = train(repeatable_cfg)
    losses, expected = (scalars(runner, 'train/loss') for runner in (mixed, full))
    assert losses != expected
    assert losses == pytest.approx(expected, rel=0.05)
