"""tools/analysis_tools/plot_runs.py on hand-written logs."""

import json

import pytest


@pytest.fixture(scope='module')
def main(tool):
    return tool('analysis_tools/plot_runs').main


@pytest.fixture
def work_dir(tmp_path):
    folder = tmp_path / 'msgc/1/vis_data'
    folder.mkdir(parents=True)
    records = [
        dict(loss=1.0, epoch=1, iter=5, step=5),
        {'gates/backbone.layer1.0.conv1/head0': 0.5, 'step': 1},
    ]
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    return str(tmp_path / 'msgc')


def test_runs_gates_and_results_are_drawn(main, work_dir, tmp_path):
    results = tmp_path / 'results.json'
    results.write_text(json.dumps(dict(ms=3, mAP=0.4)))
    out = tmp_path / 'out'
    assert main([work_dir, '--out', str(out), '--results', str(results)]) == 0
    names = ['gates_msgc.png', 'runs.png', 'speed_accuracy.png']
    assert sorted(path.name for path in out.iterdir()) == names


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'expected a WORK_DIR or --results FILE'),
        (['nowhere'], 'nowhere has no */vis_data/scalars.json'),
        (['--results', 'gone.json'], 'gone.json'),
    ],
)
def test_a_wrong_argument_ends_in_one_line(main, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match='1'):
        main([*arguments, '--out', str(tmp_path / 'out')])
    error = capsys.readouterr().err
    assert message in error
    assert 'Traceback' not in error
    assert not (tmp_path / 'out').exists()
