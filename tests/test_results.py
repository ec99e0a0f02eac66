"""Each figure in the documentation's tables of results is its run's, as docs/results/ has it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdet_groupconv.analysis.results import put_table, read_rows, results_table
from mmdet_groupconv.analysis.results.table import FIGURES, RUNS

COLUMNS = FIGURES | RUNS
PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / 'docs'
ROWS = {row.name: row for row in read_rows(DOCS / 'results/rows')}
# Runs of before there were rows.
PRETRAINED = {
    run['name']: run for run in json.loads((DOCS / 'results/pretrained.json').read_text())
}
OF_PRETRAINED = {
    'mAP': lambda run: f'{run["coco/bbox_mAP"]:.3f}',
    'mAP50': lambda run: f'{run["coco/bbox_mAP_50"]:.3f}',
    'mAP of large boxes': lambda run: f'{run["coco/bbox_mAP_l"]:.3f}',
    'backbone MACs': lambda run: f'{run["mac_ratio"]:.3f}',
}


def rows_of(last: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Of all tables with such a last column: what it says, in backquotes, and each row's cells."""
    for path in (PROJECT / 'README.md', *sorted(DOCS.glob('*.md'))):
        header = None
        for line in path.read_text().splitlines():
            if not line.startswith('|'):
                header = None
                continue
            cells = [cell.strip() for cell in line.strip().strip('|').split('|')]
            header = header or cells
            if header[-1] == last and cells[-1].startswith('`'):
                yield cells[-1].strip('`'), dict(zip(header, cells, strict=True))


def test_a_pretrained_run_has_a_config_and_its_own_figures():
    found = dict(rows_of('run'))
    assert found.keys() == PRETRAINED.keys()
    for name, cells in found.items():
        assert list(PROJECT.glob(f'configs/*/{name}.py')), name
        shown = {column: cell for column, cell in cells.items() if column in OF_PRETRAINED}
        assert shown == {column: OF_PRETRAINED[column](PRETRAINED[name]) for column in shown}, name


def test_figures_beside_the_name_of_a_row_are_its_own():
    found = list(rows_of('row'))
    assert found
    for name, cells in found:
        shown = {column: cell.strip('*') for column, cell in cells.items() if column in COLUMNS}
        assert len(shown) > 2, name
        assert shown == {column: COLUMNS[column](ROWS[name], ROWS) for column in shown}, name


def test_the_table_of_results_is_made_from_its_rows():
    table = results_table(ROWS.values())
    assert put_table(DOCS / 'results.md', table) == (DOCS / 'results.md').read_text()


def test_a_row_has_what_its_log_ends_with():
    for row in ROWS.values():
        log = (DOCS / f'results/logs/{row.name}.jsonl').read_text().splitlines()
        *_, last = map(json.loads, log)
        assert last['epoch'] == row.epochs == len(log)
        assert last['coco/bbox_mAP'] == pytest.approx(row.mean_ap, rel=1e-4)
        for part, name in (('backbone', 'mac_ratio'), ('detector', 'mac_ratio_detector')):
            logged = last.get(f'val {name}', last.get(name))
            assert logged == pytest.approx(row.macs[part], rel=1e-4)
