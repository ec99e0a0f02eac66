"""Logs of runs read and drawn; points of speed and accuracy."""

import json

import pytest

from mmdet_groupconv.analysis import pictures


@pytest.fixture
def log(tmp_path):
    """``log(start, *records)``: what the run that was started then logged; the work dir."""

    def log(start, *records, name='run', config=None):
        folder = tmp_path / name / start / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text(''.join(json.dumps(r) + '\n' for r in records))
        if config:
            (folder / 'config.py').write_text(config)
        return tmp_path / name

    return log


def train(step, loss, **more):
    return dict(loss=loss, epoch=1 + step // 10, iter=step, step=step, **more)


def val(step, **more):
    return {'step': step, **more}


def test_train_and_validation_are_told_apart(log):
    run = pictures.read_run(
        log('1', train(5, 2.0), train(10, 1.0), val(1, **{'coco/bbox_mAP': 0.3, 'time': 0.1}))
    )
    assert run.name == 'run'
    assert run.by_epoch
    assert run.train['loss'] == ([5, 10], [2.0, 1.0])
    assert run.val['coco/bbox_mAP'] == ([1], [0.3])


def test_a_later_start_replaces_what_it_did_again(log):
    ap = 'coco/bbox_mAP'
    log(
        '20240101',
        *[train(s, 1.0) for s in (5, 10, 15, 20)],
        val(1, **{ap: 0.1}),
        val(2, **{ap: 0.2}),
    )
    folder = log('20240102', train(15, 9.0), val(2, **{ap: 0.9}))
    run = pictures.read_run(folder)
    assert run.train['loss'] == ([5, 10, 15], [1.0, 1.0, 9.0])
    assert run.val[ap] == ([1, 2], [0.1, 0.9])


def test_iterations_alone_are_no_epochs(log):
    run = pictures.read_run(log('1', dict(loss=1.0, iter=5, step=5)))
    assert not run.by_epoch


def test_densities_are_means_over_heads(log):
    records = [
        val(e, **{'gates/layer1.0.conv1/head0': 1.0 / e, 'gates/layer1.0.conv1/head1': 0.0})
        for e in (1, 2)
    ]
    assert pictures.read_run(log('1', *records)).densities() == {
        'layer1.0.conv1': ([1, 2], [0.5, 0.25])
    }


def test_panels_of_nothing_are_left_out(log):
    runs = [
        pictures.read_run(log('1', train(5, 2.0), train(10, 1.0), name='one')),
        pictures.read_run(log('1', train(5, 3.0, mac_ratio=0.9, mac_target=0.8), name='two')),
    ]
    loss, ratio = pictures.plot_runs(runs).axes
    assert [a.get_title(loc='left').split(';')[0] for a in (loss, ratio)] == [
        'loss', 'MAC ratio of the backbone',
    ]  # fmt: skip
    assert [line.get_ydata().tolist() for line in loss.lines if len(line.get_ydata())] == [
        [2.0, 1.0], [3.0],
    ]  # fmt: skip
    assert [(line.get_linestyle(), line.get_ydata().tolist()) for line in ratio.lines] == [
        ('-', [0.9]), ('--', [0.8]),
    ]  # fmt: skip
    legend = [text.get_text() for text in ratio.figure.legends[0].get_texts()]
    assert legend == ['one', 'two']


def test_a_target_is_drawn_where_its_ratio_is(log):
    record = train(5, 1.0, mac_ratio=0.9, mac_ratio_detector=0.7, mac_target=0.6)
    config = "custom_hooks = [dict(type='MACBudgetHook', scope='detector')]\n"
    axes = pictures.plot_runs([pictures.read_run(log('1', record, config=config))]).axes
    _, backbone, detector = axes
    assert [line.get_linestyle() for line in backbone.lines] == ['-']
    assert [line.get_linestyle() for line in detector.lines] == ['-', '--']


def test_runs_of_one_name_are_told_apart(log):
    folders = [log('1', train(5, 1.0), name=name) for name in ('a/wd', 'b/wd', 'b/other')]
    assert [run.name for run in pictures.read_runs(folders[1:])] == ['wd', 'other']
    assert [run.name for run in pictures.read_runs(folders[:2])] == ['a/wd', 'b/wd']
    with pytest.raises(ValueError, match='given twice'):
        pictures.read_runs([folders[0], folders[0]])


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'has no \*/vis_data/scalars.json'):
        pictures.read_run(tmp_path)


def test_a_log_of_nothing_is_refused(log):
    with pytest.raises(ValueError, match='logged nothing yet'):
        pictures.read_run(log('1'))


def test_a_damaged_line_is_named(log):
    folder = log('1', train(5, 1.0))
    with (folder / '1/vis_data/scalars.json').open('a') as file:
        file.write('{"loss": 0.\n')
    with pytest.raises(ValueError, match=r'scalars.json, line 2: no JSON'):
        pictures.read_run(folder)


POINTS = [
    dict(name='dense', ms=390, mAP=0.46),
    dict(name='FLGC, 8 groups', ms=174, mAP=0.377, group='FLGC'),
    dict(name='FLGC, 4 groups', ms=176, mAP=0.378, group='FLGC'),
    dict(name='plain groups', ms=178, mAP=0.379),
    dict(name='MSGC', ms=180, mAP=0.377),
]


@pytest.fixture
def results(tmp_path):
    def results(content, name='results.json'):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return results


def test_points_have_names_that_do_not_overlap(results):
    points, x, y = pictures.read_points([results(POINTS)])
    assert (x, y) == ('latency [ms]', 'mAP')
    figure = pictures.plot_speed_accuracy(points, x, y)
    (axes,) = figure.axes
    assert [tuple(line.get_xydata()[0]) for line in axes.lines] == [
        (p['ms'], p['mAP']) for p in POINTS
    ]
    assert {t.get_text() for t in axes.texts} == {p['name'] for p in POINTS}
    boxes = [t.get_window_extent(figure.canvas.get_renderer()) for t in axes.texts]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    colours = [line.get_color() for line in axes.lines]
    assert colours[1] == colours[2]
    assert len(set(colours)) == 4


def test_names_are_of_one_size_and_keep_off_the_ticks():
    points = [dict(name=f'at the left, {n}', x=0.001 * n, y=0.001 * n) for n in range(4)]
    points += [dict(name=f'elsewhere, {n}', x=n, y=-n % 4) for n in range(2, 10)]
    (axes,) = pictures.plot_speed_accuracy(points).axes
    assert len({text.get_fontsize() for text in axes.texts}) == 1
    renderer = axes.figure.canvas.get_renderer()
    left = min(text.get_window_extent(renderer).x0 for text in axes.texts)
    assert left > axes.bbox.x0


def test_metrics_of_tests_are_points_named_by_their_files(results):
    metrics = {'coco/bbox_mAP': 0.4, 'mac_ratio': 0.5, 'mac_ratio_detector': 0.8}
    files = [results(metrics, 'msgc.json'), results([{**metrics, 'name': 'other'}], 'b.json')]
    points, x, y = pictures.read_points(files)
    assert points == [dict(x=0.8, y=0.4, name='msgc'), dict(x=0.8, y=0.4, name='other')]
    assert (x, y) == ('MAC ratio of the detector', 'mAP')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{', 'results.json: no JSON'),
        ([], 'results.json: expected an object of metrics'),
        ([3], 'results.json: expected an object of metrics'),
        ([dict(mAP=0.3)], 'expected one of ms, macs'),
        ([*POINTS, dict(ms=3, macs=3)], 'expected one of coco/bbox_mAP, mAP'),
    ],
)
def test_other_results_are_refused(results, content, message):
    with pytest.raises(ValueError, match=message):
        pictures.read_points([results(content)])


@pytest.mark.parametrize('name', ['r18', 'retinanet_msgc-mbv2_fpn_4e_coco-person'])
def test_legends_of_many_runs_fit_the_picture(name):
    curves = dict(loss=([1, 2], [1.0, 0.5]))
    figure = pictures.plot_runs([pictures.Run(f'{name}_{number}', curves) for number in range(10)])
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
