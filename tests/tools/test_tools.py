"""The command lines, called in this process on the demo's config made tiny."""

import itertools
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

PROJECT = Path(__file__).resolve().parents[2]
DEMO = str(PROJECT / 'configs/demo/retinanet_msgc-r18_scenes.py')
BCCD = str(PROJECT / 'configs/retinanet/retinanet_msgc-r18_fpn_12e_bccd.py')
RUNS = itertools.count()


def tiny(tmp_path, *more):
    loaders = [
        f'{loader}_dataloader.{key}'
        for loader in ('train', 'val', 'test')
        for key in (
            'num_workers=0',
            'persistent_workers=False',
            'batch_size=2',
            'dataset.num_images=4',
            'dataset.image_size=64',
            f'dataset.data_root={tmp_path}',
        )
    ]
    ann_file = f'{tmp_path}/annotations/val.json'
    return [
        f'--work-dir={tmp_path / "work_dir"}',
        '--cfg-options',
        *loaders,
        f'val_evaluator.ann_file={ann_file}',
        f'test_evaluator.ann_file={ann_file}',
        'model.backbone.base_channels=8',
        'model.neck.in_channels=[8,16,32,64]',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'default_hooks.logger.interval=1',
        # MMEngine keeps one logger and one visualizer of a name for the whole process.
        f'experiment_name=run{next(RUNS)}',
        f'visualizer.name=run{next(RUNS)}',
        *more,
    ]


@pytest.fixture(scope='module')
def run(tool, tmp_path_factory):
    """A finished training run of 2 iterations."""
    folder = tmp_path_factory.mktemp('run')
    assert tool('train').main([DEMO, *tiny(folder)]) == 0
    return folder


# In quick tests train.py is started by several processes, below.
TRAIN = pytest.param('train', marks=pytest.mark.slow)


@pytest.mark.parametrize('name', [TRAIN, 'test', 'analysis_tools/get_macs'])
def test_a_tool_starts_in_a_process_of_its_own(name):
    command = [sys.executable, str(PROJECT / f'tools/{name}.py'), '--help']
    environment = dict(os.environ, PYTHONPATH=str(PROJECT))
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert '--cfg-options' in done.stdout


def test_training_leaves_a_checkpoint_and_a_log_with_the_ratio(run):
    assert (run / 'work_dir/epoch_1.pth').is_file()
    scalars = next((run / 'work_dir').glob('*/vis_data/scalars.json')).read_text()
    assert 'mac_ratio' in scalars
    assert 'mac_target' in scalars


RANKS = """
import hashlib
import json
import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS


@DATA_SAMPLERS.register_module()
class EveryRankAll(torch.utils.data.SequentialSampler):
    def __init__(self, dataset, seed=None):
        super().__init__(dataset)


@HOOKS.register_module()
class RankReport(Hook):
    priority = 'VERY_LOW'

    def __init__(self, folder):
        self.folder, self.losses = folder, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({key: float(value) for key, value in outputs.items()})

    def after_train(self, runner):
        state = runner.model.module.state_dict()
        scheduled = [key for key in state if key.endswith(('.inactive', '.mask'))]
        steps = {key: state[key].tolist() for key in scheduled}
        digest = hashlib.sha1(b''.join(v.numpy().tobytes() for v in state.values())).hexdigest()
        logged = runner.message_hub.log_scalars
        scalars = {k: v.data[0].tolist() for k, v in logged.items() if 'mac_' in k}
        report = dict(losses=self.losses, steps=steps, digest=digest, scalars=scalars)
        with open(f'{self.folder}/rank{dist.get_rank()}.json', 'w') as file:
            json.dump(report, file)
"""
HOOKS = {
    'MSGC': "dict(type='MACBudgetHook', weight=30.0)",
    'DGC': "dict(type='DGCScheduleHook')",
    'SGC': "dict(type='SelfGroupingHook', steps={0: 50})",
}


SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in ('SGC', 'DGC')]


@pytest.mark.parametrize('method', ['MSGC', *SLOW])
def test_two_processes_train_on_cpus_and_end_cleanly(tool, tmp_path, method):
    """Both see the same images, so that all they compute must be equal."""
    config, reporting = tmp_path / 'config.py', tmp_path / 'reporting.py'
    config.write_text(
        f"_base_ = '{DEMO}'\n"
        f"model = dict(backbone=dict(type='{method}ResNet'))\n"
        f'custom_hooks = [{HOOKS[method]}]\n'
        'randomness = dict(seed=0)\n'
    )
    (tmp_path / 'ranks.py').write_text(RANKS)
    reporting.write_text(
        "_base_ = 'config.py'\n"
        "custom_imports = dict(imports=['mmdet_groupconv', 'ranks'])\n"
        "train_dataloader = dict(sampler=dict(_delete_=True, type='EveryRankAll'))\n"
        f"custom_hooks = [{HOOKS[method]}, dict(type='RankReport', folder='{tmp_path}')]\n"
    )
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    environment = dict(
        os.environ,
        PYTHONPATH=f'{PROJECT}:{tmp_path}',
        PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        PORT=port,
        OMP_NUM_THREADS='1',
    )
    script = str(PROJECT / 'tools/dist_train.sh')
    command = ['bash', script, str(reporting), '2', *tiny(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f'rank{rank}.json').read_text()) for rank in (0, 1))
    assert first == second
    assert len(first['losses']) == 2
    if method == 'MSGC':
        assert first['scalars']['train/mac_target'] == [1.0, 0.5]
    else:
        assert any(np.any(np.array(values) != 1) for values in first['steps'].values())

    checkpoint = str(tmp_path / 'work_dir/epoch_1.pth')
    assert tool('test').main([str(config), checkpoint, *tiny(tmp_path)]) == 0  # in one process
    tested = [json.loads(p.read_text()) for p in (tmp_path / 'work_dir').glob('*/2*.json')]
    for name in ('mac_ratio', 'mac_ratio_detector'):
        (in_validation,) = first['scalars'][f'val/{name}']
        assert [m[name] for m in tested if name in m] == pytest.approx([in_validation])


def predictions_of(tool, run, *options):
    out = run / 'predictions.pkl'
    checkpoint = str(run / 'work_dir/epoch_1.pth')
    kept = 'model.test_cfg.score_thr=0.0'  # after two iterations nothing is sure
    arguments = [DEMO, checkpoint, *options, '--out', str(out), *tiny(run, kept)]
    assert tool('test').main(arguments) == 0
    return pickle.loads(out.read_bytes())


def test_compact_testing_predicts_the_same(tool, run):
    eager, fast = predictions_of(tool, run), predictions_of(tool, run, '--compact')
    assert len(eager) == 4
    for one, other in zip(fast, eager, strict=True):
        expected, found = (item['pred_instances'] for item in (other, one))
        assert len(expected['scores']) > 0
        torch.testing.assert_close(found['scores'], expected['scores'], atol=1e-5, rtol=1e-4)


def test_bf16_predicts_about_the_same(tool, run):
    eager = predictions_of(tool, run)
    fast = predictions_of(tool, run, '--compact', '--precision', 'bf16')
    for one, other in zip(fast, eager, strict=True):
        found, expected = (item['pred_instances']['scores'][:5] for item in (one, other))
        assert not torch.equal(found, expected)
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_freezing_tells_what_it_changes(tool, run, capsys):
    checkpoint = str(run / 'work_dir/epoch_1.pth')
    assert (
        tool('test').main([DEMO, checkpoint, '--freeze', '0.5', '--calibrate', '1', *tiny(run)])
        == 0
    )
    assert 'gates by image' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        tool('test').main([DEMO, checkpoint, '--freeze', '2', *tiny(run)])
    assert '--freeze 2.0: expected a share' in capsys.readouterr().err


@pytest.fixture(scope='module')
def exported(tool, run):
    """An ONNX file of the run's detector, at the size of its images."""
    pytest.importorskip('onnxruntime')
    file, shape = run / 'detector.onnx', ['--shape', '64', '64']
    checkpoint = str(run / 'work_dir/epoch_1.pth')
    kept = 'model.test_cfg.score_thr=0.0'
    settings = [word for word in tiny(run, kept) if word not in ('--work-dir',)]
    settings = settings[settings.index('--cfg-options') :]
    assert tool('export').main([DEMO, checkpoint, '--out', str(file), *shape, *settings]) == 0
    return file


def test_a_file_has_the_metrics_of_its_checkpoint(tool, run, exported, capsys):
    checkpoint = str(run / 'work_dir/epoch_1.pth')
    kept = 'model.test_cfg.score_thr=0.0'
    arguments = [DEMO, str(exported), '--compare', checkpoint, *tiny(run, kept)]
    assert tool('test').main(arguments) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if 'coco/bbox_mAP ' in line]
    (cells,) = ([cell.strip() for cell in line.split('│')[2:5]] for line in table)
    assert abs(float(cells[0]) - float(cells[1])) <= 1e-3


def test_int8_is_calibrated_on_training_images(tool, run, capsys):
    pytest.importorskip('openvino')
    pytest.importorskip('nncf')
    file, checkpoint = run / 'whole_numbers.onnx', str(run / 'work_dir/epoch_1.pth')
    settings = tiny(run, 'model.test_cfg.score_thr=0.0')
    settings = settings[settings.index('--cfg-options') :]
    how = ['--runtime', 'openvino', '--precision', 'int8', '--freeze', '0.5', '--calibrate', '2']
    where = ['--out', str(file), '--shape', '64', '64']
    assert tool('export').main([DEMO, checkpoint, *where, *how, *settings]) == 0
    out = capsys.readouterr().out
    assert 'of their variance' in out
    assert 'layers that stay float because they cost accuracy: ' in out
    assert 'ms in openvino, int8' in out
    assert tool('test').main([DEMO, str(file), *tiny(run)]) == 0  # in what it was made for


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        (['--compact'], 'expected no --compact or --freeze'),
        (['--compare', 'nowhere.pth'], 'nowhere.pth not found'),
        (['--precision', 'bf16'], 'precision bf16 in onnxruntime, expected fp32 or int8'),
    ],
)
def test_what_a_file_can_not_be_tested_with(tool, run, exported, capsys, options, complaint):
    with pytest.raises(SystemExit):
        tool('test').main([DEMO, str(exported), *options, *tiny(run)])
    assert complaint in capsys.readouterr().err


def test_gates_by_image_are_refused_where_a_runtime_can_not_have_them(tool, run, exported, capsys):
    pytest.importorskip('openvino')
    with pytest.raises(SystemExit):
        tool('test').main([DEMO, str(exported), '--runtime', 'openvino', *tiny(run)])
    assert 'its gates come with the image, and OpenVINO computes no weights' in (
        capsys.readouterr().err
    )


def test_a_file_that_is_no_detector_s_is_refused(tool, run, tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    (tmp_path / 'text.onnx').write_text('no graph')
    for name, complaint in (
        ('text.onnx', 'text.onnx is no ONNX file'),
        ('no.onnx', 'no.onnx not found'),
    ):
        with pytest.raises(SystemExit):
            tool('test').main([DEMO, str(tmp_path / name), *tiny(run)])
        assert complaint in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool('test').main([DEMO, 'a.pth', '--compare', 'b.pth', *tiny(run)])
    assert '--runtime with a.pth, expected an ONNX file' in capsys.readouterr().err
    for how in (['bf16'], ['int8', '--compact']):
        with pytest.raises(SystemExit):
            tool('test').main([DEMO, 'a.pth', '--precision', *how, *tiny(run)])
        assert f'--precision {how[0]} with a.pth, expected an ONNX' in capsys.readouterr().err


def test_testing_writes_metrics_pictures_and_predictions(tool, run):
    checkpoint = str(run / 'work_dir/epoch_1.pth')
    out = run / 'predictions.pkl'
    options = ['--show-dir', 'pictures', '--out', str(out)]
    assert tool('test').main([DEMO, checkpoint, *options, *tiny(run)]) == 0
    assert len(list((run / 'work_dir').glob('*/pictures/*.jpg'))) == 4
    with out.open('rb') as file:
        assert len(pickle.load(file)) == 4
    metrics = [json.loads(p.read_text()) for p in (run / 'work_dir').glob('*/2*.json')]
    assert any('mac_ratio' in found for found in metrics)


def test_testing_needs_no_pretrained_file(tool, run):
    options = tiny(run, 'model.backbone.pretrained=gone.pth')
    assert tool('test').main([DEMO, str(run / 'work_dir/epoch_1.pth'), *options]) == 0


def test_fine_tuning_checks_the_backbone_and_leaves_heads_free(tool, run, tmp_path, capsys):
    load = f'load_from={run / "work_dir/epoch_1.pth"}'
    assert tool('train').main([DEMO, *tiny(tmp_path, load, 'model.bbox_head.num_classes=7')]) == 0
    with pytest.raises(SystemExit):
        tool('train').main([DEMO, *tiny(tmp_path, load, 'model.backbone.depth=34')])
    assert 'epoch_1.pth does not fit MSGCResNet' in capsys.readouterr().err.splitlines()[-1]


def test_resuming_goes_on_after_the_last_epoch(tool, run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'work_dir/last_checkpoint').write_text(str(tmp_path / 'work_dir/epoch_1.pth'))
    assert tool('train').main([DEMO, '--resume', *tiny(tmp_path, 'train_cfg.max_epochs=2')]) == 0
    assert (tmp_path / 'work_dir/epoch_2.pth').is_file()
    logs = [path.read_text() for path in (tmp_path / 'work_dir').glob('*/*.log')]
    assert any('resumed epoch: 1, iter: 2' in log for log in logs)


def test_macs_of_images_beside_the_target(tool, run, capsys):
    out = run / 'macs.json'
    images = run / 'val'  # the images lie in a folder below
    arguments = [
        DEMO,
        f'--checkpoint={run / "work_dir/epoch_1.pth"}',
        f'--images={images}',
        f'--out={out}',
        '--cfg-options',
        'model.backbone.base_channels=8',
        'model.neck.in_channels=[8,16,32,64]',
    ]
    assert tool('analysis_tools/get_macs').main(arguments) == 0
    assert 'ratio targeted' in capsys.readouterr().out
    assert 0.3 < json.loads(out.read_text())['ratio'] < 1.1


def test_macs_of_the_published_network(tool, capsys):
    arguments = [BCCD, '--shape', '224', '224', '--classes', '1000']
    assert tool('analysis_tools/get_macs').main(arguments) == 0
    assert '1,817.209' in capsys.readouterr().out


@pytest.fixture
def other_depth(tmp_path):
    from mmdet_groupconv.backbones import MSGCResNet

    path = tmp_path / 'r34.pth'
    torch.save(MSGCResNet(34, base_channels=8).state_dict(), path)
    return path


WRONG = {
    'heads that do not divide': (
        ['model.backbone.heads=3'],
        'heads=3 does not divide out_channels=8 of layer1.0.conv2',
    ),
    'unknown argument': (
        ['model.backbone.head=4'],
        "MSGCResNet got an unknown argument 'head', did you mean 'heads'?",
    ),
    'depth': (['model.backbone.depth=19'], 'depth=19 of MSGCResNet, expected one of [18, 34,'),
    'hook': (['custom_hooks.0.target=2'], 'target=2 of MACBudgetHook'),
    'type': (['model.backbone.type=MSGResNet'], 'MSGResNet is not in the'),
    'annotation file': (
        ['train_dataloader.dataset.type=CocoDataset', 'train_dataloader.dataset.ann_file=no.json'],
        'no.json of train_dataloader not found',
    ),
    'checkpoint': (
        ['model.backbone.pretrained=no.pth'],
        'checkpoint no.pth not found',
    ),
}


@pytest.mark.parametrize(
    ('device', 'wrapper'), [('cpu', 'CPUAmpOptimWrapper'), ('cuda', 'AmpOptimWrapper')]
)
def test_mixed_precision_is_the_devices(tool, monkeypatch, device, wrapper):
    train = tool('train')
    monkeypatch.setattr('mmdet_groupconv.engine.launch.get_device', lambda: device)
    assert train.configure(train.parse_args([DEMO, '--amp'])).optim_wrapper.type == wrapper


def test_mixed_precision_meant_for_gpus_trains_on_cpus(tool, monkeypatch):
    train = tool('train')
    monkeypatch.setattr('mmdet_groupconv.engine.launch.get_device', lambda: 'cpu')
    meant = ['optim_wrapper.loss_scale=dynamic', 'optim_wrapper.dtype=float16']
    cfg = train.configure(train.parse_args([DEMO, '--amp', '--cfg-options', *meant]))
    assert not {'loss_scale', 'dtype'} & set(cfg.optim_wrapper)


@pytest.mark.parametrize('case', WRONG)
def test_a_users_mistake_ends_in_one_line_before_anything_is_written(tool, tmp_path, capsys, case):
    options, message = WRONG[case]
    if case == 'annotation file':
        options = [*options, f'train_dataloader.dataset.data_root={tmp_path}']
    with pytest.raises(SystemExit) as info:
        tool('train').main([DEMO, *tiny(tmp_path, *options)])
    assert info.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / 'work_dir').exists()


def test_a_checkpoint_of_another_depth_is_refused(tool, tmp_path, capsys, other_depth):
    options = [f'model.backbone.pretrained={other_depth}']
    with pytest.raises(SystemExit):
        tool('train').main([DEMO, *tiny(tmp_path, *options)])
    error = capsys.readouterr().err.splitlines()[-1]
    assert 'r34.pth does not fit MSGCResNet' in error
    assert 'keys unexpected (first: layer1.2.conv1.weight)' in error


def test_a_missing_config_is_named(tool, capsys):
    with pytest.raises(SystemExit):
        tool('train').main(['no_config.py'])
    assert capsys.readouterr().err.splitlines()[-1] == 'error: config no_config.py not found'
