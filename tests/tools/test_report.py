"""tools/report.py on a tiny run: one page, with everything in it."""

import json
import re

import pytest
import torch


@pytest.fixture(scope='module')
def page(tool, tiny_run, tmp_path_factory):
    """The page and its figures."""
    out = tmp_path_factory.mktemp('page') / 'report.html'
    assert tool('report').main([str(tiny_run), '--out', str(out), '--images=2', '--samples=1']) == 0
    return out.read_text(), json.loads(out.with_suffix('.json').read_text())


def test_the_page_needs_no_other_file_and_no_network(page):
    html, _ = page
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources
    assert all(source.startswith('data:image/') for source in sources)


def test_it_shows_metrics_macs_times_gates_and_samples(page):
    html, _ = page
    titles = re.findall(r'<h[23]>([^<]*)</h[23]>', html)
    assert {'At a glance', 'Training', 'Metrics', 'MACs by part', 'Sample images'} <= set(titles)
    assert {'How much each layer and head reads', 'MACs by layer and part'} <= set(titles)
    assert 'data:image/jpeg' in html
    assert '0.5 of the backbone' in html


def test_its_figures_stand_beside_it(page):
    _, (run,) = page
    assert run['name'] == 'run'
    assert run['targets'] == {'backbone': 0.5}
    assert {'mac_ratio', 'mac_ratio_detector'} <= run.keys()
    assert run['ms'] == run['milliseconds']['compact']
    assert set(run['milliseconds']) == {'dense eager', 'eager', 'compact'}
    assert set(run['parts']) == {'backbone', 'neck', 'bbox_head'}
    assert 0 < run['macs'] < 1.1 * run['original_macs']


def test_its_figures_say_where_they_come_from(page):
    html, (run,) = page
    assert run['machine']['torch'] == torch.__version__
    assert run['machine']['device'] in html
    assert run['validated']['mac_ratio'] == {'1': pytest.approx(run['mac_ratio'])}


def test_the_run_is_left_as_it_was(tiny_run, page):
    names = {path.name for path in tiny_run.iterdir()}
    kept = {'epoch_1.pth', 'last_checkpoint', 'retinanet_msgc-r18_scenes.py'}
    assert kept <= names
    assert len(names - kept) == 1  # the log of the training


@pytest.mark.parametrize(
    ('out', 'message'),
    [('page.txt', 'ends in .html'), ('missing/page.html', 'missing not found')],
)
def test_a_wrong_output_is_refused_before_the_work(tool, tiny_run, tmp_path, capsys, out, message):
    with pytest.raises(SystemExit, match='1'):
        tool('report').main([str(tiny_run), '--out', str(tmp_path / out)])
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_runs_is_named(tool, tmp_path, capsys):
    with pytest.raises(SystemExit, match='1'):
        tool('report').main([str(tmp_path), '--out', str(tmp_path / 'page.html')])
    error = capsys.readouterr().err
    assert f'{tmp_path} has no config' in error
    assert 'Traceback' not in error
