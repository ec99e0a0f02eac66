"""tools/compress.py, its tools in processes of their own."""

import json

import pytest


@pytest.fixture(scope='module')
def module(tool):
    return tool('compress')


def run(module, folder, out, *options):
    files = folder / 'config.py', folder / 'dense.pth'
    sizes = '--shape', 64, 64, '--align', 4, '--calibrate', 2
    return module.main([str(argument) for argument in (*files, '--out', out, *sizes, *options)])


@pytest.fixture
def no_tools(module, monkeypatch):
    """Calling one is an error."""

    def call(tool, *_):
        raise AssertionError(f'{tool} was called')

    monkeypatch.setattr(module, 'call', call)


def complaint(capfd):
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    return line


def test_a_dense_detector_becomes_a_file(module, folder, tmp_path, capfd, monkeypatch):
    how = ['--method', 'fixed', '--runtime', 'onnxruntime', '--precision', 'fp32', '--epochs', 1]
    how += ['--cfg-options', 'model.test_cfg.score_thr=0.0']  # of weights that know nothing yet
    assert run(module, folder, tmp_path, *how) == 0
    found = json.loads((tmp_path / 'onnxruntime-fp32-summary.json').read_text())
    assert found['dense'].keys() == found['file'].keys()
    assert {'coco/bbox_mAP', 'macs', 'milliseconds'} <= found['file'].keys()
    assert found['file']['macs'] < 1
    assert (tmp_path / 'tuned/epoch_1.pth').is_file()
    assert (tmp_path / 'detect.py').is_file()
    table = capfd.readouterr().out
    monkeypatch.setattr(module, 'call', lambda tool, *_: pytest.fail(f'{tool} was called again'))
    (half,) = (tmp_path / 'tested/dense').glob('*/*.json')
    half.write_text('{')  # what the test itself left isn't read again
    assert run(module, folder, tmp_path, *how) == 0  # as after an interruption
    assert capfd.readouterr().out in table
    with pytest.raises(SystemExit):
        run(module, folder, tmp_path, '--macs', 0.4, *how)
    assert 'settings.json has macs 0.5, expected 0.4, or another folder for --out' in (
        complaint(capfd)
    )


def test_no_epochs_make_a_file_of_what_groups_leave(module, folder, tmp_path):
    how = ['--method', 'fixed', '--runtime', 'onnxruntime', '--precision', 'fp32', '--epochs', 0]
    how += ['--cfg-options', 'model.test_cfg.score_thr=0.0']
    assert run(module, folder, tmp_path, *how) == 0
    assert not (tmp_path / 'tuned').exists()
    found = json.loads((tmp_path / 'onnxruntime-fp32-summary.json').read_text())
    planned = json.loads((tmp_path / 'grouped/plan.json').read_text())
    assert found['file']['macs'] == planned['detector'] < 1


def test_gates_are_frozen_for_the_file(module, folder, tmp_path, monkeypatch):
    calls = []

    def call(*words):
        calls.append([str(word) for word in words])
        raise SystemExit

    monkeypatch.setattr(module, 'call', call)
    with pytest.raises(SystemExit):
        run(module, folder, tmp_path, '--method', 'msgc', '--teacher', 'better.pth')
    (words,) = calls
    assert words[0] == 'group'
    assert '--freeze-gates' in words
    assert words[words.index('--teacher') + 1] == 'better.pth'
    assert '--shape' not in words  # which is the file's


def test_a_tool_that_fails_ends_it(module, folder, tmp_path, capfd):
    out = tmp_path / 'out'
    with pytest.raises(SystemExit) as info:
        run(module, folder, out, '--teacher', 'no.pth')
    assert info.value.code == 1
    assert 'no.pth not found' in complaint(capfd)
    assert not out.exists()


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--shape', '8', '8'], '--shape 8 8, expected 64 or more'),
        (['--threads', '0'], '--threads 0, expected 1 or more'),
        (['--method', 'msgc', '--epochs', '0'], '--epochs 0 with --method msgc, whose gates close'),
        (['--runtime', 'onnxruntime', '--precision', 'bf16'], 'precision bf16 in onnxruntime'),
        (
            ['--cfg-options', 'train_cfg.max_epochs=None', 'train_cfg.max_iters=9'],
            "'max_iters': 9}, expected a loop with max_epochs",
        ),
    ],
)
def test_what_would_fail_at_the_end_is_said_first(
    module, no_tools, folder, tmp_path, capfd, options, said
):
    with pytest.raises(SystemExit):
        run(module, folder, tmp_path / 'out', *options)
    assert said in complaint(capfd)
    assert not (tmp_path / 'out').exists()
