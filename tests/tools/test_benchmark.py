import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel

from mmdet_groupconv.benchmark import AbsentError
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.layers import MaskGenerator

PROJECT = Path(__file__).resolve().parents[2]
RETINANET = PROJECT / 'configs/retinanet'
OURS = str(RETINANET / 'retinanet_msgc-r18_fpn_12e_bccd.py')
SMALL = ['--shape', '64', '64', '--rounds', '1']


NARROW = """
_base_ = '{base}'
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1),
)
"""


@pytest.fixture
def narrow(tmp_path):
    """The detector with few channels, and the dense one: making files fast takes long."""
    paths = []
    for name in ('retinanet_msgc-r18_fpn_12e_bccd', 'retinanet_r18_fpn_12e_bccd'):
        paths.append(tmp_path / f'{name}.py')
        paths[-1].write_text(NARROW.format(base=RETINANET / f'{name}.py'))
    ours, dense = map(str, paths)
    return [ours, '--dense', dense]


@pytest.fixture
def module(tool, monkeypatch):
    """The tool; what it sets for its process is taken back."""
    module, threads = tool('benchmark'), torch.get_num_threads()

    def no_compiler(*_):
        raise AbsentError('torch.compile: left out, it takes half a minute')

    monkeypatch.setattr('mmdet_groupconv.benchmark.cases.compiled', no_compiler)
    yield module
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def benchmark(module):
    return module.main


def test_all_forms_of_a_backbone_are_timed(benchmark, tmp_path, capsys):
    out = tmp_path / 'figures.json'
    assert benchmark([OURS, *SMALL, '--ratio', '0.5', '--explain', '--out', str(out)]) == 0
    figures = json.loads(out.read_text())
    assert {'compact', 'eager', 'published form', 'dense eager', 'dense compact'} <= set(
        figures['cases']
    )
    assert figures['ratio'] == pytest.approx(0.5, abs=0.005)
    assert figures['machine']['threads'] == 1
    assert 0 < figures['varying_gates'] < 1
    medians = {name: case['median'] for name, case in figures['cases'].items()}
    best = min(median for name, median in medians.items() if name.startswith('dense'))
    assert figures['factors']['best dense'] == pytest.approx(best / medians['compact'])
    for case in figures['cases'].values():
        assert case['quartiles'][0] <= case['median'] <= case['quartiles'][1]
    assert all(case['median'] > 0 for case in figures['cases'].values())
    layers = {layer['name']: layer for layer in figures['layers']}
    assert layers['conv1']['reason'] == 'not grouped'
    assert layers['layer4.1.conv2']['kind'] == 'gates of the block'
    printed = capsys.readouterr().out
    assert 'published form' in printed
    assert 'layer4.1.conv2' in printed
    assert 'torch.compile: left out' in printed


def test_a_checkpoint_s_gates_are_timed(benchmark, tmp_path):
    model, out = build_model(Config.fromfile(OURS)), tmp_path / 'figures.json'
    for generator in (m for m in model.modules() if isinstance(m, MaskGenerator)):
        generator.conv[3].bias.data.fill_(-10)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'closed.pth')
    weights = '--checkpoint', str(tmp_path / 'closed.pth')
    assert benchmark([OURS, *SMALL, *weights, '--out', str(out)]) == 0
    assert json.loads(out.read_text())['ratio'] < 0.3


@pytest.mark.parametrize('arguments', [['--part', 'detector'], ['--train', '--batch', '2']])
def test_whole_detectors_and_training_steps_are_timed(benchmark, narrow, arguments, tmp_path):
    out = tmp_path / 'out/figures.json'
    out.parent.mkdir()
    assert benchmark([*narrow, *SMALL, *arguments, '--out', str(out)]) == 0
    assert json.loads(out.read_text())['cases']['dense eager']['median'] > 0
    assert [path.name for path in out.parent.iterdir()] == ['figures.json']


@pytest.mark.parametrize('part', ['backbone', pytest.param('detector', marks=pytest.mark.slow)])
def test_files_are_timed_in_their_precisions(benchmark, narrow, part, tmp_path, capsys):
    for package in ('openvino', 'nncf'):
        pytest.importorskip(package)
    out = tmp_path / 'figures.json'
    how = ['--part', part, '--freeze', '0.5', '--precision', 'fp32', 'bf16', 'int8']
    assert benchmark([*narrow, *SMALL, *how, '--out', str(out)]) == 0
    figures = json.loads(out.read_text())
    assert figures['absent'] == ['dense compiled: torch.compile: left out, it takes half a minute']
    forms = 'compact bf16', 'openvino', 'openvino bf16', 'openvino int8', 'onnxruntime'
    for name in forms:
        assert {name, f'dense {name}'} <= set(figures['cases'])
    medians = {name: case['median'] for name, case in figures['cases'].items()}
    ours, dense, factor = figures['best']['bf16']
    assert {ours, dense.removeprefix('dense ')} <= {'compact bf16', 'openvino bf16'}
    assert factor == pytest.approx(medians[dense] / medians[ours])
    ours, dense, _ = figures['best']['any']
    assert medians[ours] == min(m for name, m in medians.items() if not name.startswith('dense'))
    assert medians[dense] == min(m for name, m in medians.items() if name.startswith('dense'))
    assert 'fastest of ours' in capsys.readouterr().out


def test_gates_by_image_have_no_int8_file(benchmark, narrow, capsys):
    for package in ('openvino', 'nncf'):
        pytest.importorskip(package)
    assert benchmark([*narrow, *SMALL, '--precision', 'int8']) == 0
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'openvino int8: gates come with the image' in printed


def test_training_steps_are_alike_and_pay_for_the_method_s_loss(module, narrow, monkeypatch):
    losses = []
    parse = BaseModel.parse_losses

    def watch(model, found):
        losses.append((type(model.backbone).__name__, found))
        return parse(model, found)

    monkeypatch.setattr(BaseModel, 'parse_losses', watch)
    assert module.main([*narrow, *SMALL, '--train', '--batch', '2', '--rounds', '2']) == 0
    assert all(('loss_macs' in found) == (name == 'MSGCResNet') for name, found in losses)
    dense = torch.stack([total(found) for name, found in losses if name == 'ResNet'])
    assert torch.isfinite(dense).all()
    torch.testing.assert_close(dense, dense[:1].expand_as(dense))
    assert {name for name, _ in losses} == {'MSGCResNet', 'ResNet'}


def total(losses):
    terms = [value for name, value in losses.items() if 'loss' in name]
    return sum(sum(term) if isinstance(term, list) else term for term in terms)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--require', 'dense', '1'], "expected one of 'compact'"),
        (['--require', 'best dense', 'much'], "'much'"),
        (['--out', 'nowhere/figures.json'], 'folder nowhere not found'),
        (['--rounds', '0'], '1 or more'),
        (['--explain', '--train'], '--explain is of inference'),
        (['--ratio', '0.5', '--checkpoint', 'a.pth'], '--ratio is of random weights'),
    ],
)
def test_mistakes_are_named_before_anything_is_timed(benchmark, arguments, message, capsys):
    with pytest.raises(SystemExit):
        benchmark([OURS, *SMALL, *arguments])
    assert message in capsys.readouterr().err


def test_a_factor_that_is_missed_is_the_exit_status(benchmark, narrow, capsys):
    assert benchmark([*narrow, *SMALL, '--require', 'dense eager', '1000']) == 1
    assert 'required 1000' in capsys.readouterr().out
    assert benchmark([*narrow, *SMALL, '--require', 'best dense', '0.0001']) == 0


def test_a_dense_config_that_is_missing_is_named(benchmark, tmp_path, capsys):
    config = tmp_path / 'retinanet_msgc-r18_mine.py'
    config.write_text(f"_base_ = '{OURS}'\n")
    with pytest.raises(SystemExit):
        benchmark([str(config), *SMALL])
    assert 'retinanet_r18_mine.py not found' in capsys.readouterr().err
