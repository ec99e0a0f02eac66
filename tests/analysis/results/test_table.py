"""Rows as a table."""

import pytest

from mmdet_groupconv.analysis.results import Row, put_table, results_table

MACHINE = dict(device='some CPU', cpu_capability='AVX512')


def file_of(precision, runtime, milliseconds, dense):
    return dict(
        precision=precision, runtime=runtime, milliseconds=milliseconds, dense_milliseconds=dense,
        bytes=12_340_000, bbox_mAP=0.4321, shape=[480, 640], threads=1, machine=MACHINE,
    )  # fmt: skip


def row(name, mean_ap, **settings):
    metrics = {'coco/bbox_mAP': mean_ap, 'coco/bbox_mAP_50': 0.5}
    given = dict(
        name=name, detector='RetinaNet', data='cells', method='dense', scope=None, dense=None,
        metrics=metrics, macs=dict(backbone=1.0, detector=1.0), parameters=1_234_567, epochs=12,
        seed=0, hours=0.25, config='abc', commands=[], machine={},
    )  # fmt: skip
    return Row(**{**given, **settings})


def cells(line):
    return [cell.strip() for cell in line.strip()[1:-1].split('|')]


def rows_of(table):
    """Each row's figures and its run."""
    lines = [cells(line) for line in table.splitlines() if line.startswith('|')]
    half = len(lines) // 2
    both = [
        [dict(zip(part[0], line, strict=True)) for line in part[2:]]
        for part in (lines[:half], lines[half:])
    ]
    assert [row[''] for row in both[0]] == [row[''] for row in both[1]]
    return [figures | run for figures, run in zip(*both, strict=True)]


DENSE = row('dense', 0.45)
GROUPED = row(
    'grouped',
    0.44,
    method='SGC',
    scope='detector',
    dense='dense',
    macs=dict(backbone=0.4, detector=0.5),
    files=[
        file_of('fp32', 'onnxruntime', 100.4, 199.6),
        file_of('fp32', 'openvino', 1.0, 2.0),
        file_of('int8', 'openvino', 30.0, None),
    ],
)


def test_a_row_shows_its_run_beside_the_dense_one():
    first, second = rows_of(results_table([GROUPED, DENSE]))
    assert (first['method'], first['to dense'], first['int8 [ms]']) == ('dense', '', '')
    assert second['to dense'] == '-0.010'
    assert second['MACs: backbone, all'] == '0.400, 0.500'
    assert second['parameters [M]'] == '1.23'
    assert second['run'] == '[grouped](results/logs/grouped.jsonl)'


def test_times_are_those_of_the_runtime_that_users_take():
    _, grouped = rows_of(results_table([DENSE, GROUPED]))
    assert grouped['float32 [ms]'] == '100 (200)'
    assert grouped['int8 [ms]'] == '30'
    assert grouped['mAP in int8'] == '0.432'
    assert grouped['file [MB]'] == '12.3'
    assert 'Files: 480x640, threads: 1, some CPU (AVX512).' in results_table([DENSE, GROUPED])


def test_each_detector_has_its_tables():
    table = results_table([DENSE, row('other', 0.3, detector='Faster R-CNN')])
    assert table.index('### Faster R-CNN, cells') < table.index('### RetinaNet, cells')


def test_a_dense_row_that_is_not_there_is_named():
    with pytest.raises(ValueError, match='grouped is compared with dense, which is not there'):
        results_table([GROUPED])


def test_a_table_stands_between_its_marks(tmp_path):
    path = tmp_path / 'results.md'
    path.write_text('above\n<!-- results -->\nold\n<!-- end of results -->\nbelow\n')
    path.write_text(put_table(path, 'new'))
    text = 'above\n<!-- results -->\n\nnew\n\n<!-- end of results -->\nbelow\n'
    assert path.read_text() == text
    assert put_table(path, 'new') == text


@pytest.mark.parametrize('text', ['', '<!-- end of results --> <!-- results -->'])
def test_a_file_without_marks_is_named(tmp_path, text):
    path = tmp_path / 'results.md'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'results\.md has no <!-- results -->'):
        put_table(path, 'new')


def test_instructions_that_a_file_was_timed_without_are_told():
    file = file_of('int8', 'openvino', 1.0, 2.0)
    file['machine'] = dict(MACHINE, onednn_max_cpu_isa='AVX512_CORE_VNNI')
    table = results_table([row('other', 0.4, files=[file])])
    assert 'some CPU (AVX512_CORE_VNNI).' in table
