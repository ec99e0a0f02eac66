"""Rows of results as tables in Markdown."""

from collections.abc import Callable, Iterable
from pathlib import Path

from .record import Row

START, END = '<!-- results -->', '<!-- end of results -->'
_BY_PRECISION = dict(fp32='onnxruntime', int8='openvino')  # what users of each run
Columns = dict[str, Callable[[Row, dict[str, Row]], str]]
FIGURES: Columns = {
    'method': lambda row, _: row.method,
    'scope': lambda row, _: row.scope or '',
    'mAP': lambda row, _: f'{row.mean_ap:.3f}',
    'to dense': lambda row, rows: _difference(row, rows),
    'mAP50': lambda row, _: f'{row.metrics["coco/bbox_mAP_50"]:.3f}',
    'MACs: backbone, all': lambda row, _: ', '.join(f'{v:.3f}' for v in row.macs.values()),
    'parameters [M]': lambda row, _: f'{row.parameters / 1e6:.2f}',
    'file [MB]': lambda row, _: _of_file(row, 'fp32', lambda f: f'{f["bytes"] / 1e6:.1f}'),
    'float32 [ms]': lambda row, _: _of_file(row, 'fp32', _times),
    'int8 [ms]': lambda row, _: _of_file(row, 'int8', _times),
    'mAP in int8': lambda row, _: _of_file(row, 'int8', lambda f: f'{f["bbox_mAP"]:.3f}'),
}
RUNS: Columns = {
    'run': lambda row, _: f'[{row.name}](results/logs/{row.name}.jsonl)',
    'epochs': lambda row, _: str(row.epochs),
    'seed': lambda row, _: str(row.seed),
    'hours': lambda row, _: f'{row.hours:.2f}',
    'trained on': lambda row, _: row.machine.get('device', ''),
    'config': lambda row, _: f'`{row.config}`',
}


def results_table(rows: Iterable[Row]) -> str:
    """Two tables for each detector and data set, dense rows first: figures, and their runs.

    Both number their rows, as all columns in one are too wide to read. Milliseconds: of the row's
    file and, in brackets, of the same graph with dense convolutions, in one process. Raises
    ValueError where a row's dense one is not there.
    """
    by_name = {row.name: row for row in rows}
    titles = dict.fromkeys((row.detector, row.data) for row in by_name.values())
    parts = []
    for title in sorted(titles):
        own = [row for row in by_name.values() if (row.detector, row.data) == title]
        own.sort(key=lambda row: (row.scope or '', -row.macs.get('detector', 1), row.method))
        figures, runs = (_table(columns, own, by_name) for columns in (FIGURES, RUNS))
        parts.append(f'### {title[0]}, {title[1]}\n\n{figures}\n\n{_machines(own)}\n\n{runs}')
    return '\n\n'.join(parts)


def put_table(path: str | Path, table: str) -> str:
    """The text of a file with the table between its two marks. Raises ValueError without them."""
    text = Path(path).read_text()
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f'{path} has no {START} ... {END}, expected both once')
    before, rest = text.split(START)
    return f'{before}{START}\n\n{table}\n\n{END}{rest.split(END)[1]}'


def _table(columns: Columns, own: list[Row], rows: dict[str, Row]) -> str:
    lines = [['', *columns], ['---'] * (len(columns) + 1)]
    for number, row in enumerate(own, 1):
        lines.append([str(number), *(cell(row, rows) for cell in columns.values())])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _difference(row: Row, rows: dict[str, Row]) -> str:
    if row.dense is None:
        return ''
    if row.dense not in rows:
        raise ValueError(f'{row.name} is compared with {row.dense}, which is not there')
    return f'{row.mean_ap - rows[row.dense].mean_ap:+.3f}'


def _of_file(row: Row, precision: str, cell: Callable[[dict], str]) -> str:
    wanted = precision, _BY_PRECISION[precision]
    found = [f for f in row.files if (f['precision'], f['runtime']) == wanted]
    return cell(found[0]) if found else ''


def _times(file: dict) -> str:
    own, dense = file['milliseconds'], file['dense_milliseconds']
    return f'{own:.0f}' if dense is None else f'{own:.0f} ({dense:.0f})'


def _machines(rows: list[Row]) -> str:
    """Where the files of some rows were timed."""
    where = {
        f'{"x".join(map(str, file["shape"]))}, threads: {file["threads"]}, {_cpu(file["machine"])}'
        for row in rows
        for file in row.files
    }
    return f'Files: {"; ".join(sorted(where))}.' if where else 'No files were timed.'


def _cpu(machine: dict) -> str:
    """By name, with the instructions that it computed with."""
    instructions = machine.get('onednn_max_cpu_isa', machine['cpu_capability'])
    return f'{machine["device"]} ({instructions})'
