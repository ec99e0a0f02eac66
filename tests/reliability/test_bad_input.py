"""Wrong arguments, checkpoints and files: one clear line, nothing executed, nothing half done."""

import math
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.cnn import build_conv_layer
from mmdet.registry import METRICS, MODELS
from mmengine.registry import HOOKS, init_default_scope

from mmdet_groupconv.backbones import MSGCResNet
from mmdet_groupconv.checkpoints import read_state_dict
from mmdet_groupconv.engine.errors import describe, run_errors, user_errors

PROJECT = Path(__file__).resolve().parents[2]
DEMO = str(PROJECT / 'configs/demo/retinanet_msgc-r18_scenes.py')

# Arguments by what they have to be: name -> how to build with it.
NO_NUMBERS = ['4', 'x', None, [4], {}, math.nan, math.inf, -math.inf, True, 'yes']
NO_COUNTS = [*NO_NUMBERS, 0, -1, 2.5, 1.0]


def backbone(kind, argument, **others):
    base = dict(depth=18) if kind.endswith('ResNet') else dict(widen_factor=0.25)
    return lambda value: MODELS.build({**base, **others, 'type': kind, argument: value})


def layer(kind, argument):
    return lambda value: build_conv_layer({'type': kind, argument: value}, 16, 16, 3)


def hook(kind, argument):
    return lambda value: HOOKS.build({'type': kind, argument: value})


def classifier(argument):
    body = dict(type='MSGCResNet', depth=18, base_channels=8, out_indices=(3,))
    whole = dict(type='ImageClassifier', backbone=body, num_classes=3)
    return lambda value: MODELS.build({**whole, argument: value})


def head(kind, argument, **own):
    whole = dict(in_channels=8, num_classes=3, **own)
    return lambda value: MODELS.build({**whole, 'type': kind, argument: value})


COUNTS = {
    **{
        f'{kind}.{argument}': (backbone(kind, argument), argument)
        for kind, argument in [
            ('MSGCResNet', 'heads'), ('DGCResNet', 'heads'), ('DGCResNet', 'squeeze_rate'),
            ('FLGCResNet', 'groups'), ('SGCResNet', 'groups'), ('FixedGroupResNet', 'groups'),
            ('MSGCResNet', 'base_channels'), ('SGCResNet', 'in_channels'),
            ('MSGCResNet', 'num_stages'), ('MSGCMobileNetV2', 'heads'),
            ('DGCMobileNetV2', 'heads'), ('FLGCMobileNetV2', 'groups'),
            ('SGCMobileNetV2', 'groups'),
        ]
    },
    **{
        f'{kind}.{argument}': (layer(kind, argument), argument)
        for kind, argument in [
            ('MSGCConv2d', 'heads'), ('MSGCConv2d', 'reduction'), ('DGCConv2d', 'heads'),
            ('DGCConv2d', 'squeeze_rate'), ('FLGCConv2d', 'groups'), ('SGCConv2d', 'groups'),
            ('FixedGroupConv2d', 'groups'),
        ]
    },
    'ImageClassifier.num_classes': (classifier('num_classes'), 'num_classes'),
    'GroupedRetinaHead.num_classes': (
        head('GroupedRetinaHead', 'num_classes', pred_cfg=dict(type='FLGCConv2d')), 'num_classes'
    ),
    'GroupedRetinaHead.feat_channels': (
        head('GroupedRetinaHead', 'feat_channels', pred_cfg=None), 'feat_channels'
    ),
    'GroupedRPNHead.num_convs': (head('GroupedRPNHead', 'num_convs', conv_cfg=None), 'num_convs'),
    'GroupedShared2FCBBoxHead.num_classes': (
        head('GroupedShared2FCBBoxHead', 'num_classes', linear_cfg=dict(type='SGCLinear')),
        'num_classes',
    ),
}  # fmt: skip
NUMBERS = {
    'DGCResNet.gate_factor': (backbone('DGCResNet', 'gate_factor'), 'gate_factor', [0, -1, 1.1]),
    'DGCConv2d.gate_factor': (layer('DGCConv2d', 'gate_factor'), 'gate_factor', [0, -1, 1.1]),
    'MSGCMobileNetV2.widen_factor': (
        backbone('MSGCMobileNetV2', 'widen_factor'), 'widen_factor', [0, -1]
    ),
    'MACBudgetHook.target': (hook('MACBudgetHook', 'target'), 'target', [0, -1, 1.1]),
    'MACBudgetHook.weight': (hook('MACBudgetHook', 'weight'), 'weight', [-1]),
    'MACBudgetHook.start': (hook('MACBudgetHook', 'start'), 'start', [-1, 1.1]),
    'MACBudgetHook.stop': (hook('MACBudgetHook', 'stop'), 'stop', [-1, 1.1]),
    'DGCScheduleHook.weight': (hook('DGCScheduleHook', 'weight'), 'weight', [-1e-9]),
    'DGCScheduleHook.start': (hook('DGCScheduleHook', 'start'), 'start', [-1, 1.1]),
    'DGCScheduleHook.stop': (hook('DGCScheduleHook', 'stop'), 'stop', [-1, 1.1]),
    'ImageClassifier.dropout': (classifier('dropout'), 'dropout', [-1, 1.5]),
    'ImageClassifier.label_smoothing': (classifier('label_smoothing'), 'label_smoothing', [-1, 1]),
}  # fmt: skip
FLAGS = {
    'MSGCResNet.attention': backbone('MSGCResNet', 'attention', base_channels=8),
    'MSGCResNet.over_batch': backbone('MSGCResNet', 'over_batch', base_channels=8),
    'DGCResNet.pre_norm': backbone('DGCResNet', 'pre_norm'),
    'DGCMobileNetV2.pre_norm': backbone('DGCMobileNetV2', 'pre_norm'),
    'DGCConv2d.pre_norm': layer('DGCConv2d', 'pre_norm'),
    'MSGCConv2d.attention': layer('MSGCConv2d', 'attention'),
    'MSGCResNet.norm_eval': backbone('MSGCResNet', 'norm_eval'),
    'MSGCMobileNetV2.with_cp': backbone('MSGCMobileNetV2', 'with_cp'),
    'ImageClassifier.small_images': classifier('small_images'),
}


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


def refused(build, value, name):
    with pytest.raises((ValueError, TypeError)) as info:
        build(value)
    line = describe(info.value)
    assert name in line
    assert 'expected' in line
    assert '\n' not in line


@pytest.mark.parametrize('case', COUNTS)
def test_what_is_no_count_is_refused_by_name(case):
    build, name = COUNTS[case]
    for value in NO_COUNTS:
        refused(build, value, name)


@pytest.mark.parametrize('case', NUMBERS)
def test_what_is_no_number_in_range_is_refused_by_name(case):
    build, name, beyond = NUMBERS[case]
    for value in [*NO_NUMBERS, *beyond]:
        refused(build, value, name)


@pytest.mark.parametrize('case', FLAGS)
def test_texts_are_no_flags(case):
    for value in ('no', 'False', 2, None, 0.5, []):
        refused(FLAGS[case], value, case.split('.')[1])


@settings(max_examples=30, deadline=None)
@given(
    steps=st.dictionaries(
        st.one_of(st.integers(-2, 5), st.text('ab. ', max_size=3), st.floats(), st.none()),
        st.one_of(st.floats(), st.text(max_size=3), st.none(), st.lists(st.floats())),
        max_size=3,
    )
)
def test_steps_of_any_other_kind_are_refused_by_name(steps):
    flat = [v for step in steps.values() for v in (step if isinstance(step, list) else [step])]
    numbers = all(isinstance(v, float) and 0 < v < 100 for v in flat)
    if not flat or not numbers or not all(type(epoch) is int for epoch in steps):
        with pytest.raises(ValueError, match=r'steps.* of SelfGroupingHook, expected'):
            HOOKS.build(dict(type='SelfGroupingHook', steps=steps))


OTHERS = {
    'depth': (backbone('MSGCResNet', 'depth'), [17, '18', None, [18]]),
    'frozen_stages': (backbone('MSGCResNet', 'frozen_stages'), [5, -2, '1', None]),
    'out_indices': (backbone('DGCResNet', 'out_indices'), [(4,), (-1,), (), None, 'a', ('a',)]),
    'strides': (backbone('FLGCResNet', 'strides'), [(1, 2), (0, 1, 1, 1), None, 'abcd']),
    'style': (backbone('SGCResNet', 'style'), ['torch', 3]),
    'norm_cfg': (backbone('MSGCResNet', 'norm_cfg'), [None, 'BN']),
    'topk': (lambda v: METRICS.build(dict(type='Accuracy', topk=v)), [(), (0,), 5, ('1',), None]),
    'scope': (hook('MACBudgetHook', 'scope'), ['neck', None, 3]),
    'seed': (lambda v: HOOKS.build(dict(type='SelfGroupingHook', steps={1: 9}, seed=v)), [-1, 'x']),
    'linear_cfg': (
        head('GroupedShared2FCBBoxHead', 'linear_cfg'), [None, 'SGCLinear', dict(type='SGCConv2d')],
    ),
    'conv_cfg': (lambda v: build_conv_layer(v, 8, 8, 3), ['FLGCConv2d', 3, dict(type='SGCLinear')]),
}  # fmt: skip


@pytest.mark.parametrize('name', OTHERS)
def test_other_arguments_are_refused_by_name(name):
    build, values = OTHERS[name]
    for value in values:
        refused(build, value, name)


UNKNOWN = {
    'MSGCResNet': (lambda: MODELS.build(dict(type='MSGResNet', depth=18)), 'MSGCResNet'),
    'FLGCConv2d': (lambda: build_conv_layer(dict(type='FLGConv2d'), 8, 8, 3), 'FLGCConv2d'),
    'MACBudgetHook': (lambda: HOOKS.build(dict(type='MACBudgtHook')), 'MACBudgetHook'),
    'an argument': (lambda: MODELS.build(dict(type='MSGCResNet', depth=18, head=4)), 'heads'),
}


@pytest.mark.parametrize('case', UNKNOWN)
def test_the_nearest_known_name_is_told(case, capsys):
    build, known = UNKNOWN[case]
    with pytest.raises(SystemExit) as info, user_errors():
        build()
    assert info.value.code == 1
    assert f"did you mean '{known}'?" in capsys.readouterr().err


def test_errors_that_name_nothing_get_the_object_that_was_built(capsys):
    with pytest.raises(SystemExit), user_errors():
        MODELS.build(dict(type='RetinaHead', num_classes='4', in_channels=8))
    assert capsys.readouterr().err.startswith('error: RetinaHead: ')


def test_bugs_in_a_run_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), run_errors():
        raise ZeroDivisionError
    with pytest.raises(ValueError, match='not ours'), run_errors():
        raise ValueError('not ours')


@pytest.mark.parametrize(
    'error',
    [
        OSError(28, 'No space left on device', 'epoch_1.pth'),
        AssertionError('failed to load image: a.jpg'),
        AssertionError('Caught AssertionError in worker 0.\nTrace\nX: failed to load image: a.jpg'),
    ],
)
def test_files_that_fail_within_a_run_end_it_in_one_line(error, capsys):
    with pytest.raises(SystemExit), run_errors():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert 'epoch_1.pth' in line or line == 'error: failed to load image: a.jpg'


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.fixture
def checkpoints(tmp_path):
    """Bad ones by name; unpickling ``code`` or ``pickle`` would make the file ``harm``."""
    paths = {
        name: tmp_path / f'{name}.pth' for name in ('text', 'empty', 'short', 'code', 'pickle')
    }
    whole = tmp_path / 'whole.pth'
    torch.save(MSGCResNet(18, base_channels=8).state_dict(), whole)
    paths['text'].write_text('hello')
    paths['empty'].touch()
    paths['short'].write_bytes(whole.read_bytes()[:-5000])
    torch.save(dict(state_dict=Payload(tmp_path / 'harm')), paths['code'])
    paths['pickle'].write_bytes(pickle.dumps(Payload(tmp_path / 'harm')))
    paths['folder'] = tmp_path
    paths['missing'] = tmp_path / 'no.pth'
    torch.save(dict(epoch=3), tmp_path / 'no_weights.pth')
    paths['no weights'] = tmp_path / 'no_weights.pth'
    return paths


BAD = ['text', 'empty', 'short', 'code', 'pickle', 'folder', 'missing', 'no weights']


@pytest.mark.parametrize('name', BAD)
def test_a_bad_checkpoint_is_named_and_never_executed(checkpoints, tmp_path, name):
    with pytest.raises((ValueError, FileNotFoundError)) as info:
        read_state_dict(checkpoints[name])
    assert str(checkpoints[name]) in str(info.value)
    assert not (tmp_path / 'harm').exists()


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_checkpoint_cut_anywhere_is_refused(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp('cut')
    torch.save(dict(weight=torch.ones(1000)), folder / 'whole.pth')
    content = (folder / 'whole.pth').read_bytes()
    (folder / 'cut.pth').write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r'cut\.pth'):
        read_state_dict(folder / 'cut.pth')


TOOLS = {
    'train': [],
    'test': ['CHECKPOINT'],
    'check_dataset': [],
    'benchmark': [],
    'group': ['CHECKPOINT', '--method', 'fixed', '--out', 'OUT'],
    'export': ['CHECKPOINT', '--out', 'OUT'],
    'analysis_tools/get_macs': ['--checkpoint', 'CHECKPOINT'],
    'convert_checkpoint': ['OUT'],
    'publish_backbone': ['OUT'],
    'prepare_cifar10': ['--out', 'OUT'],
}
CONFIGS = {
    'syntax': ('config.py', 'a = ('),
    'name': ('config.py', 'a = b'),
    'base': ('config.py', "_base_ = 'no.py'"),
    'yaml': ('config.yaml', 'a: ['),
    'json': ('config.json', '{'),
    'suffix': ('config.txt', 'a = 1'),
    'empty': ('config.py', ''),
    'import': ('config.py', "custom_imports = dict(imports=['no_such_module'])"),
}


def ends_in_one_line(main, argv, capsys, folder):
    before = sorted(folder.rglob('*'))
    with pytest.raises(SystemExit) as info:
        main([str(argument) for argument in argv])
    assert info.value.code == 1
    error = capsys.readouterr().err
    assert 'Traceback' not in error
    (line,) = [line for line in error.splitlines() if line.startswith('error: ')]
    assert len(line) > len('error: ')
    assert sorted(folder.rglob('*')) == before
    return line


@pytest.mark.parametrize('name', TOOLS)
def test_every_tool_names_a_missing_file(tool, name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = dict(CHECKPOINT=tmp_path / 'no.pth', OUT=tmp_path / 'out.pth')
    argv = [tmp_path / 'no.file', *(known.get(value, value) for value in TOOLS[name])]
    line = ends_in_one_line(tool(name).main, argv, capsys, tmp_path)
    assert 'no.file' in line or name == 'benchmark'


@pytest.mark.parametrize('case', CONFIGS)
def test_a_config_that_is_none_is_refused(tool, case, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, content = CONFIGS[case]
    (tmp_path / file).write_text(content)
    for name in ('train', 'check_dataset', 'analysis_tools/get_macs'):
        line = ends_in_one_line(tool(name).main, [tmp_path / file], capsys, tmp_path)
        assert file in line or case in ('base', 'empty'), name


@pytest.mark.parametrize('option', ['get_macs', 'check_dataset'])
def test_a_device_is_not_replaced_by_a_file(tool, option, tmp_path, capsys):
    os.mkfifo(tmp_path / 'pipe')  # as /dev/null and /dev/full, but ours to lose
    name, flag = dict(
        get_macs=('analysis_tools/get_macs', '--out'), check_dataset=('check_dataset', '--json')
    )[option]
    line = ends_in_one_line(tool(name).main, [DEMO, flag, tmp_path / 'pipe'], capsys, tmp_path)
    assert 'pipe is a device or pipe, expected a file' in line
    assert (tmp_path / 'pipe').is_fifo()


@pytest.mark.parametrize('name', BAD)
def test_a_bad_checkpoint_ends_a_training_before_it_begins(
    tool, name, checkpoints, tmp_path, capsys
):
    work_dir = tmp_path / 'work_dir'
    argv = [DEMO, '--work-dir', work_dir, '--cfg-options', f'load_from={checkpoints[name]}']
    line = ends_in_one_line(tool('train').main, argv, capsys, tmp_path)
    assert str(checkpoints[name]) in line


def test_a_work_dir_below_a_file_is_named(tool, tmp_path, capsys):
    (tmp_path / 'file').touch()
    options = [f'train_dataloader.dataset.data_root={tmp_path}']
    argv = [DEMO, '--work-dir', tmp_path / 'file/x', '--cfg-options', *options]
    assert str(tmp_path / 'file') in ends_in_one_line(tool('train').main, argv, capsys, tmp_path)


@pytest.mark.parametrize(
    ('name', 'option'), [('analysis_tools/get_macs', '--out'), ('check_dataset', '--json')]
)
def test_a_report_that_can_not_be_written_is_named(tool, name, option, tmp_path, capsys):
    (tmp_path / 'file').touch()
    for out in ('no/out.json', 'file/out.json', ''):
        line = ends_in_one_line(tool(name).main, [DEMO, option, tmp_path / out], capsys, tmp_path)
        assert str(tmp_path / out) in line
