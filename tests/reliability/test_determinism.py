"""The same seed on the same machine gives the same detector."""

import pytest
import torch

METHODS = 'msgc', 'dgc', 'flgc', 'sgc'

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def short_cfg(tiny_detector_cfg):
    """``short_cfg(method)``: 4 iterations in 2 epochs, without validation or checkpoints."""

    def read(method):
        cfg = tiny_detector_cfg(method)
        cfg.train_dataloader.dataset.num_images = 4
        cfg.train_cfg.update(max_epochs=2, val_interval=9)
        cfg.default_hooks.checkpoint = None
        if method == 'sgc':
            cfg.custom_hooks[0].steps = {0: 20, 1: 40}
        return cfg

    return read


def losses(runner):
    logged = runner.message_hub.log_scalars
    return {key: log.data[0].tolist() for key, log in logged.items() if 'time' not in key}


def differing(runner, other):
    """Names of tensors that are not equal."""
    ours, others = runner.model.state_dict(), other.model.state_dict()
    assert ours.keys() == others.keys()
    return [key for key in ours if not torch.equal(ours[key], others[key])]


@pytest.mark.parametrize('method', METHODS)
def test_runs_of_one_seed_are_equal(short_cfg, train, method):
    first, second = (train(short_cfg(method)) for _ in range(2))
    assert len(losses(first)['train/loss']) == 4
    assert losses(first) == losses(second)
    assert differing(first, second) == []


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_runs_of_other_seeds_are_not(short_cfg, train, method):
    cfg = short_cfg(method)
    first, other = (train(cfg, randomness=dict(seed=seed)) for seed in (0, 1))
    assert losses(first)['train/loss'] != losses(other)['train/loss']
    assert differing(first, other)


@pytest.mark.slow
@pytest.mark.parametrize('persistent', [False, True])
def test_runs_with_data_workers_are_equal(short_cfg, train, persistent):
    cfg = short_cfg('msgc')
    cfg.train_dataloader.update(num_workers=2, persistent_workers=persistent)
    first, second = (train(cfg) for _ in range(2))
    assert losses(first) == losses(second)
    assert differing(first, second) == []
