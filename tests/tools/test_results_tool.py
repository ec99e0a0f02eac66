"""tools/analysis_tools/results.py on a tiny run."""

import json
import shutil

import pytest

ABOUT = ['--detector=RetinaNet', '--data=scenes', '--method=MSGC', '--scope=backbone']


@pytest.fixture(scope='module')
def module(tool):
    return tool('analysis_tools/results')


def refused(module, capsys, *arguments):
    with pytest.raises(SystemExit) as info:
        module.main(list(map(str, arguments)))
    assert info.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of a run, too short to find anything, which logged that it found some."""
    shutil.copytree(tiny_run, tmp_path / 'run')
    (log,) = tmp_path.glob('run/*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[-1] |= {'coco/bbox_mAP': 0.125, 'coco/bbox_mAP_50': 0.5}
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return tmp_path / 'run'


@pytest.fixture
def recorded(module, run, tmp_path, monkeypatch):
    """The folder of results, of a run with a file."""
    from mmdet_groupconv.analysis.results import record

    monkeypatch.setattr(record, 'test_file', lambda *_: {'coco/bbox_mAP': 0.25})
    (tmp_path / 'f.onnx').write_bytes(b'graph')
    figures = dict(precision='int8', runtime='openvino', milliseconds=1, dense_milliseconds=2)
    machine = dict(device='some CPU', cpu_capability='AVX2')
    figures.update(bytes=5, shape=[64, 64], threads=1, machine=machine, checkpoint='epoch_1.pth')
    (tmp_path / 'f.json').write_text(json.dumps(figures))
    out = tmp_path / 'results'
    arguments = ['record', run, '--name=tiny', *ABOUT, '--files', tmp_path / 'f.onnx']
    arguments += ['--commands', 'train', 'export', '--results', out]
    assert module.main(list(map(str, arguments))) == 0
    return out


def test_a_row_has_what_its_log_ends_with(recorded):
    row = json.loads((recorded / 'rows/tiny.json').read_text())
    lines = [json.loads(line) for line in (recorded / 'logs/tiny.jsonl').read_text().splitlines()]
    assert [line['epoch'] for line in lines] == [1]
    assert lines[-1]['coco/bbox_mAP'] == row['metrics']['coco/bbox_mAP'] == 0.125
    assert lines[-1]['val mac_ratio'] == pytest.approx(row['macs']['backbone'], rel=1e-4)
    assert lines[-1]['loss'] > 0
    assert (row['epochs'], row['method'], row['commands']) == (1, 'MSGC', ['train', 'export'])
    assert row['files'][0]['bbox_mAP'] == 0.25
    assert 'checkpoint' not in row['files'][0]
    assert 0 < row['hours'] < 1


def test_the_table_is_made_from_rows(module, recorded, tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('<!-- results -->\n<!-- end of results -->\n')
    assert module.main(['table', '--results', str(recorded), '--into', str(page)]) == 0
    assert '| MSGC | backbone |' in page.read_text()
    assert '| 1 (2) | 0.250 |' in page.read_text()


def test_a_folder_that_is_no_run_leaves_nothing(module, tmp_path, capsys):
    out = tmp_path / 'results'
    line = refused(module, capsys, 'record', tmp_path, '--name=a', *ABOUT, '--results', out)
    assert f'{tmp_path} has no config' in line
    assert not out.exists()


def test_a_file_without_its_figures_is_named(module, tiny_run, tmp_path, capsys):
    (tmp_path / 'f.onnx').write_bytes(b'graph')
    arguments = 'record', tiny_run, '--name=a', *ABOUT, '--files', tmp_path / 'f.onnx'
    assert 'f.onnx or f.json not found' in refused(
        module, capsys, *arguments, '--results', tmp_path
    )


def test_no_rows_no_table(module, tmp_path, capsys):
    line = refused(module, capsys, 'table', '--results', tmp_path)
    assert f'{tmp_path}/rows has no *.json' in line
