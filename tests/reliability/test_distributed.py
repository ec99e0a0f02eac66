"""Several processes learn, and measure, what one does."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm
from mmengine.optim import OptimWrapper

from mmdet_groupconv.compiler import compact
from mmdet_groupconv.macs import MacMeter

PROJECT = Path(__file__).resolve().parents[2]
RANKS = Path(__file__).with_name('ranks.py')
DEMO = PROJECT / 'configs/demo/retinanet_msgc-r18_scenes.py'
HOOKS = """
import hashlib
import json
import os
import signal
import time
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RankReport(Hook):
    priority = 'VERY_LOW'

    def __init__(self, folder):
        self.folder, self.losses = folder, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss']))

    def after_train(self, runner):
        state = runner.model.module.state_dict()
        scheduled = {k: v for k, v in state.items() if k.endswith(('.inactive', '.mask'))}
        parameters = [p.detach() for p in runner.model.parameters()]
        report = dict(
            losses=self.losses,
            scheduled={key: value.tolist() for key, value in scheduled.items()},
            digest=hashlib.sha1(b''.join(p.numpy().tobytes() for p in parameters)).hexdigest(),
        )
        with open(f'{self.folder}/rank{dist.get_rank()}.json', 'w') as file:
            json.dump(report, file)


@HOOKS.register_module()
class Die(Hook):
    def __init__(self, folder, how):
        self.folder, self.how = folder, how

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if dist.get_rank() == 1 and batch_idx == 1:
            with open(f'{self.folder}/died', 'w') as file:
                file.write(str(time.time()))
            if self.how == 'kill':
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError('the disk of the second process is on fire')
"""
METHODS = {
    'msgc': (dict(type='MSGCResNet'), dict(type='MACBudgetHook', target=0.4)),
    'msgc, attention': (
        dict(type='MSGCResNet', attention=True),
        dict(type='MACBudgetHook', target=0.4),
    ),
    'dgc': (dict(type='DGCResNet'), dict(type='DGCScheduleHook', weight=0.1)),
    'flgc': (dict(type='FLGCResNet'), dict(type='MACRatioHook')),
    'sgc': (dict(type='SGCResNet'), dict(type='MACRatioHook')),
}


@pytest.fixture(scope='module')
def ranks():
    spec = importlib.util.spec_from_file_location('ranks', RANKS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def cases(ranks):
    """Each method; and budgets between what two processes measure and what they do together."""
    cases = {
        name: dict(model={f'backbone.{key}': value for key, value in backbone.items()}, hook=hook)
        for name, (backbone, hook) in METHODS.items()
    }
    cases['msgc']['target_now'] = cases['msgc, attention']['target_now'] = 0.4
    low, high = sorted(
        ranks.learn(cases['msgc'], images)['logged']['mac_ratio']
        for images in (range(2), range(2, 4))
    )
    together = ranks.learn(cases['msgc'], range(4))['logged']['mac_ratio']
    assert low < together < high
    cases['budget exceeded by one process alone'] = dict(
        cases['msgc'], target_now=(high + max(together, (low + high) / 2)) / 2
    )
    cases['budget kept by one process alone'] = dict(
        cases['msgc'], target_now=(low + min(together, (low + high) / 2)) / 2
    )
    return cases


def run(arguments, **environment):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    return subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            'PYTHONPATH': str(PROJECT),
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'PORT': port,
            'OMP_NUM_THREADS': '1',
            **environment,
        },
    )


@pytest.fixture(
    scope='module',
    params=[2, pytest.param(4, marks=pytest.mark.slow)],
    ids='{} processes'.format,
)
def found(request, cases, tmp_path_factory):
    """What each of several processes found."""
    folder = tmp_path_factory.mktemp('ranks')
    (folder / 'cases.json').write_text(json.dumps(cases))
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    processes = request.param
    done = run([*torchrun, f'--nproc_per_node={processes}', str(RANKS), str(folder)])
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f'rank{rank}.pt', weights_only=True) for rank in range(processes)]


@pytest.fixture(scope='module')
def alone(ranks, cases):
    """What one process finds that has all images."""
    return {name: ranks.learn(case, range(ranks.IMAGES)) for name, case in cases.items()}


@pytest.mark.parametrize('method', METHODS)
def test_gradients_are_those_of_one_process(found, alone, method):
    expected = alone[method]['gradients']
    assert any(float(gradient.abs().sum()) for gradient in expected.values())
    for rank in found:
        gradients = rank['found'][method]['gradients']
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize('who', ['exceeded', 'kept'])
def test_the_budget_is_of_the_mean_ratio_over_processes(found, alone, who):
    name = f'budget {who} by one process alone'
    losses = [rank['found'][name]['logged']['loss_macs'] for rank in found]
    ratios = [rank['found'][name]['logged']['mac_ratio'] for rank in found]
    assert len(set(ratios)) > 1
    assert len(set(losses)) == 1
    assert (losses[0] > 0) == (who == 'kept')
    expected = alone[name]['gradients']
    for rank in found:
        for key, gradient in rank['found'][name]['gradients'].items():
            torch.testing.assert_close(gradient, expected[key], rtol=1e-6, atol=1e-9, msg=key)


def test_metrics_count_each_image_once(found, ranks, cases):
    expected = ranks.evaluate(cases['msgc'])  # five images: no number that processes share evenly
    for rank in found:
        assert rank['metrics'] == pytest.approx(expected, rel=1e-9)


@pytest.fixture
def process_group():
    """Of this process alone: enough for what DistributedDataParallel checks."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def train_distributed(model, packed):
    """Two steps, the first without a box. The second fails where a parameter got no gradient."""
    wrapped = MMDistributedDataParallel(model.train(), broadcast_buffers=False)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-9))
    for boxes in (0, 3):
        losses = wrapped.train_step(packed((64, 64), (64, 64), boxes=boxes), optimizer)
        assert torch.isfinite(losses['loss'])


@pytest.mark.parametrize('method', ['msgc', 'dgc', 'flgc', 'sgc'])
def test_every_parameter_takes_part_in_every_step(process_group, tiny_detector, packed, method):
    train_distributed(tiny_detector('faster-rcnn', method), packed)


@pytest.mark.slow
@pytest.mark.parametrize('norm_eval', [True, False])
@pytest.mark.parametrize('frozen_stages', [-1, 2])
@pytest.mark.parametrize('host', ['r18', 'mbv2'])
@pytest.mark.parametrize('detector', ['retinanet', 'faster-rcnn'])
@pytest.mark.parametrize('method', ['msgc', 'msgc, attention', 'dgc', 'flgc', 'sgc'])
def test_every_parameter_takes_part_whatever_is_frozen(
    process_group, tiny_detector, packed, method, detector, host, frozen_stages, norm_eval
):
    method, _, attention = method.partition(', ')
    backbone = dict(attention=True) if attention else {}
    backbone.update(frozen_stages=frozen_stages, norm_eval=norm_eval)
    train_distributed(tiny_detector(detector, method, host, **backbone), packed)


@pytest.mark.parametrize('method', ['msgc', 'dgc'])
def test_synchronised_norms_are_those_of_the_gates_too(tiny_detector, method):
    model = tiny_detector('faster-rcnn', method)
    norms = [name for name, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    own = dict(msgc='maskgen1.conv.1', dgc='conv1.norm')[method]
    assert any(name.endswith(own) for name in norms)
    model = convert_sync_batchnorm(model, 'torch')
    for name in norms:
        assert type(model.get_submodule(name)) is torch.nn.SyncBatchNorm, name


def test_synchronised_norms_compute_and_count_the_same(tiny_detector):
    """In evaluation; PyTorch's refuse to learn on CPUs."""
    backbone = tiny_detector('retinanet', 'msgc').backbone.eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), MacMeter(backbone) as meter:
        expected = backbone(image)
        ratio = meter.take().ratio
    backbone = convert_sync_batchnorm(backbone, 'torch').eval()
    with torch.no_grad(), MacMeter(backbone) as meter:
        found = backbone(image)
        assert meter.take().ratio == ratio
    for one, other, fast in zip(expected, found, compact(backbone)(image), strict=True):
        torch.testing.assert_close(other, one)
        torch.testing.assert_close(fast, one, rtol=1e-4, atol=1e-4)


def dist_train(folder, processes, method, hooks):
    """tools/dist_train.sh on the demo's config made tiny: three steps of each process."""
    (folder / 'rank_hooks.py').write_text(HOOKS)
    config = folder / 'config.py'
    loaders = ''.join(
        f'{name}_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, '
        f"dataset=dict(num_images={images}, image_size=64, data_root='{folder}'))\n"
        for name, images in (('train', 6 * processes), ('val', processes + 1))
    )
    config.write_text(
        f"_base_ = '{DEMO}'\n"
        f"model = dict(backbone=dict(type='{method}ResNet', base_channels=8),"
        ' neck=dict(in_channels=[8, 16, 32, 64]))\n'
        "custom_imports = dict(imports=['mmdet_groupconv', 'rank_hooks'])\n"
        f'custom_hooks = {hooks!r}\n'
        'randomness = dict(seed=0, diff_rank_seed=True)\n'
        f'train_cfg = dict(max_epochs=1, val_interval=1)\n{loaders}'
        f"val_evaluator = dict(ann_file='{folder}/annotations/val.json')\n"
    )
    script = str(PROJECT / 'tools/dist_train.sh')
    return run(
        ['bash', script, str(config), str(processes), f'--work-dir={folder / "work_dir"}'],
        PYTHONPATH=f'{PROJECT}:{folder}',
    )


@pytest.mark.slow
@pytest.mark.parametrize('processes', [2, 4])
@pytest.mark.parametrize(
    ('method', 'hook'),
    [
        ('MSGC', dict(type='MACBudgetHook', weight=30.0)),
        ('DGC', dict(type='DGCScheduleHook')),
        ('FLGC', dict(type='MACRatioHook')),
        ('SGC', dict(type='SelfGroupingHook', steps={0: 50})),
    ],
)
def test_processes_with_images_of_their_own_stay_alike(tmp_path, method, hook, processes):
    report = dict(type='RankReport', folder=str(tmp_path))
    done = dist_train(tmp_path, processes, method, [hook, report])
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads((tmp_path / f'rank{n}.json').read_text()) for n in range(processes)]
    assert len({tuple(report['losses']) for report in reports}) == processes
    assert all(len(report['losses']) == 3 for report in reports)
    for report in reports[1:]:
        assert report['digest'] == reports[0]['digest']
        assert report['scheduled'] == reports[0]['scheduled']
    states = list(reports[0]['scheduled'].values())
    if method == 'DGC':
        assert max(states) > 0  # channels dropped
    elif method == 'SGC':
        assert 0 in states[0][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('how', 'shown'),
    [('raise', 'the disk of the second process is on fire'), ('kill', 'SIGKILL')],
)
def test_a_process_that_dies_ends_the_others_and_says_why(tmp_path, how, shown):
    hook = dict(type='Die', folder=str(tmp_path), how=how)
    done = dist_train(tmp_path, 2, 'MSGC', [dict(type='MACBudgetHook'), hook])
    assert time.time() - float((tmp_path / 'died').read_text()) < 60
    assert done.returncode != 0
    assert shown in done.stderr
    assert not list((tmp_path / 'work_dir').glob('*.pth'))
