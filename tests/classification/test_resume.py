"""A run that was stopped and resumed equals one that was not, to the last digit."""

import pytest

from mmdet_groupconv.engine import EpochSeedHook

METHODS = 'dense', 'msgc', 'dgc', 'flgc', 'sgc'

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def after(saved):
    """``after(runner, epoch)``: what the run had saved then."""
    return lambda runner, epoch: saved(f'{runner.work_dir}/epoch_{epoch}.pth')


@pytest.mark.parametrize('method', METHODS)
def test_a_resumed_run_equals_an_uninterrupted_one(tiny_cfg, train, after, method):
    cfg = tiny_cfg(method)
    whole = train(cfg)
    resumed = train(cfg, resume=True, load_from=f'{whole.work_dir}/epoch_1.pth')
    first, last, again = after(whole, 1), after(whole, 2), after(resumed, 2)
    assert (last.meta['epoch'], last.meta['iter']) == (2, 4)
    assert any(name.endswith('momentum_buffer') for name in last.state)
    assert first.differs_in(last)
    assert last.differs_in(again) == []
    assert last.history == again.history


def test_runs_of_one_seed_are_equal_and_those_of_others_are_not(tiny_cfg, train, after):
    cfg = tiny_cfg('msgc')
    runs = [train(cfg), train(cfg), train(cfg, randomness=dict(seed=1))]
    first, second, other = (after(runner, 2) for runner in runs)
    assert first.differs_in(second) == []
    assert first.differs_in(other)


def test_without_the_seed_of_each_epoch_it_would_not(tiny_cfg, train, after, monkeypatch):
    monkeypatch.setattr(EpochSeedHook, 'before_train_epoch', lambda self, runner: None)
    cfg = tiny_cfg('dense')  # its images alone are random
    whole = train(cfg)
    resumed = train(cfg, resume=True, load_from=f'{whole.work_dir}/epoch_1.pth')
    assert after(whole, 2).differs_in(after(resumed, 2))
