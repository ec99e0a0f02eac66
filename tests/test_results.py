"""Each figure in the documentation's tables of results is its run's, as docs/results/ has it."""

import json
from pathlib import Path

import pytest

from mmdet_groupconv.analysis.results import put_table, read_rows, results_table

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / 'docs'
RUNS = {
    run['name']: run
    for path in sorted(DOCS.glob('results/*.json'))
    for run in json.loads(path.read_text())
}
COLUMNS = {
    'mAP': lambda run: f'{run["coco/bbox_mAP"]:.3f}',
    'mAP50': lambda run: f'{run["coco/bbox_mAP_50"]:.3f}',
    'mAP of large boxes': lambda run: f'{run["coco/bbox_mAP_l"]:.3f}',
    'backbone MACs': lambda run: f'{run["mac_ratio"]:.3f}',
}


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip('|').split('|')]


def rows_by_run() -> dict[str, list[dict[str, str]]]:
    """Of all tables whose last column names a run: each run's rows, by column."""
    found = {name: [] for name in RUNS}
    for path in sorted(DOCS.glob('*.md')):
        header = None
        for line in path.read_text().splitlines():
            if not line.startswith('|'):
                header = None
                continue
            cells = cells_of(line)
            header = header or cells
            if header[-1] == 'run' and cells[-1].startswith('`'):
                found.setdefault(cells[-1].strip('`'), []).append(
                    dict(zip(header, cells, strict=True))
                )
    return found


ROWS = rows_by_run()


def test_a_run_has_a_config_and_a_row():
    assert ROWS
    for name, rows in ROWS.items():
        assert name in RUNS
        assert list(PROJECT.glob(f'configs/*/{name}.py')), name
        assert rows, name


def test_a_figure_is_its_runs():
    for name, rows in ROWS.items():
        for row in rows:
            shown = {column: cell for column, cell in row.items() if column in COLUMNS}
            assert shown, name
            assert shown == {column: COLUMNS[column](RUNS[name]) for column in shown}, name


def test_the_table_of_results_is_made_from_its_rows():
    table = results_table(read_rows(DOCS / 'results/rows'))
    assert put_table(DOCS / 'results.md', table) == (DOCS / 'results.md').read_text()


def test_a_row_has_what_its_log_ends_with():
    for row in read_rows(DOCS / 'results/rows'):
        log = (DOCS / f'results/logs/{row.name}.jsonl').read_text().splitlines()
        *_, last = map(json.loads, log)
        assert last['epoch'] == row.epochs == len(log)
        assert last['coco/bbox_mAP'] == pytest.approx(row.mean_ap, rel=1e-4)
        for part, name in (('backbone', 'mac_ratio'), ('detector', 'mac_ratio_detector')):
            logged = last.get(f'val {name}', last.get(name))
            assert logged == pytest.approx(row.macs[part], rel=1e-4)
