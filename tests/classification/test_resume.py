"""A run that was stopped and resumed equals one that was not, to the last digit."""

import pytest
import torch

from mmdet_groupconv.engine import EpochSeedHook

METHODS = 'dense', 'msgc', 'dgc', 'flgc', 'sgc'


@pytest.fixture(autouse=True)
def _one_thread():
    # Sums of several threads may differ from run to run.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def content(runner, epoch):
    """What a run's checkpoint holds, MMEngine's own objects included: the file is ours."""
    return torch.load(f'{runner.work_dir}/epoch_{epoch}.pth', weights_only=False)


def tensors(tree, name=''):
    """The tensors of nested containers by name, numbers among them."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, dict | list | tuple):
            yield from tensors(value, f'{name}.{key}')
        elif isinstance(value, torch.Tensor | int | float):
            yield f'{name}.{key}', torch.as_tensor(value)


def state(checkpoint):
    parts = ('state_dict', 'optimizer', 'param_schedulers')
    return dict(tensors({part: checkpoint[part] for part in parts}))


def differing(one, other):
    """Names of tensors that are not equal."""
    one, other = state(one), state(other)
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def scalars(runner):
    """What the run logged, times aside."""
    logged = runner.message_hub.log_scalars
    return {
        key: [float(v) for v in log.data[0]] for key, log in logged.items() if 'time' not in key
    }


@pytest.mark.parametrize('method', METHODS)
def test_a_resumed_run_equals_an_uninterrupted_one(tiny_cfg, train, method):
    cfg = tiny_cfg(method)
    whole = train(cfg)
    resumed = train(cfg, resume=True, load_from=f'{whole.work_dir}/epoch_1.pth')
    first, last = content(whole, 1), content(whole, 2)
    assert (last['meta']['epoch'], last['meta']['iter']) == (2, 4)
    assert any(name.endswith('momentum_buffer') for name in state(last))
    assert differing(first, last)
    assert differing(last, content(resumed, 2)) == []
    assert scalars(resumed) == scalars(whole)


def test_runs_of_one_seed_are_equal_and_those_of_others_are_not(tiny_cfg, train):
    cfg = tiny_cfg('msgc')
    runs = [train(cfg), train(cfg), train(cfg, randomness=dict(seed=1))]
    first, second, other = (content(runner, 2) for runner in runs)
    assert differing(first, second) == []
    assert differing(first, other)


def test_without_the_seed_of_each_epoch_it_would_not(tiny_cfg, train, monkeypatch):
    monkeypatch.setattr(EpochSeedHook, 'before_train_epoch', lambda self, runner: None)
    cfg = tiny_cfg('dense')  # its images alone are random
    whole = train(cfg)
    resumed = train(cfg, resume=True, load_from=f'{whole.work_dir}/epoch_1.pth')
    assert differing(content(whole, 2), content(resumed, 2))
