"""Record finished runs, and make the table of results from what was recorded."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mmdet_groupconv.analysis.results import put_table, read_rows, record_run, results_table
from mmdet_groupconv.checkpoints import whole_file, write_json
from mmdet_groupconv.engine.errors import user_errors


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    tasks = parser.add_subparsers(dest='task', required=True)
    record = tasks.add_parser('record', help='write rows/NAME.json and logs/NAME.jsonl')
    record.add_argument('work_dir', help='of a finished run')
    record.add_argument('--name', required=True, help='of the row')
    record.add_argument('--detector', required=True, help='for people: RetinaNet R18')
    record.add_argument('--data', required=True, help='for people: blood cells')
    record.add_argument('--method', required=True, help='dense for none')
    record.add_argument('--scope', choices=('backbone', 'detector'), help='what is grouped')
    record.add_argument('--dense', help='name of the row to compare with')
    record.add_argument('--files', nargs='+', default=[], help='ONNX files of tools/export.py')
    record.add_argument('--commands', nargs='+', default=[], help='that led to the run, in order')
    table = tasks.add_parser('table', help='print the table')
    table.add_argument('--into', help='Markdown file with marks to put it between')
    for task in (record, table):
        task.add_argument('--results', default='docs/results', help='folder of rows/ and logs/')
    return parser.parse_args(argv)


def record(args: argparse.Namespace) -> None:
    folder = Path(args.results)
    names = 'detector', 'data', 'method', 'scope', 'dense'
    about = {name: getattr(args, name) for name in names}
    row, epochs = record_run(args.work_dir, args.name, about, args.commands, args.files)
    for part in ('rows', 'logs'):
        (folder / part).mkdir(parents=True, exist_ok=True)
    with whole_file(folder / 'logs' / f'{args.name}.jsonl') as path:
        path.write_text(''.join(json.dumps(epoch) + '\n' for epoch in epochs))
    write_json(folder / 'rows' / f'{args.name}.json', row.to_dict())
    print(folder / 'rows' / f'{args.name}.json')


def table(args: argparse.Namespace) -> None:
    found = read_rows(Path(args.results) / 'rows')
    if not found:
        raise FileNotFoundError(f'{args.results}/rows has no *.json, as "record" writes them')
    made = results_table(found)
    if args.into:
        text = put_table(args.into, made)
        with whole_file(args.into) as path:
            path.write_text(text)
        print(args.into)
    else:
        Console().print(Markdown(made))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        dict(record=record, table=table)[args.task](args)
    return 0


if __name__ == '__main__':
    sys.exit(main())
