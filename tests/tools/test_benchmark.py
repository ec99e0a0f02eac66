import importlib.util
import json
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RETINANET = PROJECT / 'configs/retinanet'
OURS = str(RETINANET / 'retinanet_msgc-r18_fpn_12e_bccd.py')
SMALL = ['--shape', '64', '64', '--rounds', '1']


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location('benchmark', PROJECT / 'tools/benchmark.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def no_compiler(*_):
        raise module.AbsentError('torch.compile: left out, it takes half a minute')

    module.compiled = no_compiler
    return module.main


def test_all_forms_of_a_backbone_are_timed(benchmark, tmp_path, capsys):
    out = tmp_path / 'figures.json'
    assert benchmark([OURS, *SMALL, '--ratio', '0.5', '--out', str(out)]) == 0
    figures = json.loads(out.read_text())
    assert {'compact', 'eager', 'published form', 'dense eager', 'dense compact'} <= set(
        figures['cases']
    )
    assert figures['ratio'] == pytest.approx(0.5, abs=0.005)
    assert figures['machine']['threads'] == 1
    assert all(case['median'] > 0 for case in figures['cases'].values())
    printed = capsys.readouterr().out
    assert 'published form' in printed
    assert 'torch.compile: left out' in printed


@pytest.mark.parametrize('arguments', [['--part', 'detector'], ['--train', '--batch', '2']])
def test_whole_detectors_and_training_steps_are_timed(benchmark, arguments, tmp_path):
    out = tmp_path / 'figures.json'
    assert benchmark([OURS, *SMALL, *arguments, '--out', str(out)]) == 0
    assert json.loads(out.read_text())['cases']['dense eager']['median'] > 0


def test_a_factor_that_is_missed_is_the_exit_status(benchmark, capsys):
    assert benchmark([OURS, *SMALL, '--require', 'dense eager', '1000']) == 1
    assert 'required 1000' in capsys.readouterr().out
    assert benchmark([OURS, *SMALL, '--require', 'best dense', '0.0001']) == 0


def test_a_dense_config_that_is_missing_is_named(benchmark, tmp_path, capsys):
    config = tmp_path / 'retinanet_msgc-r18_mine.py'
    config.write_text(f"_base_ = '{OURS}'\n")
    with pytest.raises(SystemExit):
        benchmark([str(config), *SMALL])
    assert 'retinanet_r18_mine.py not found' in capsys.readouterr().err
