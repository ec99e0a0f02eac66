"""Check the data sets of a config: annotations, image files and, with --full, every image."""

import argparse
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmdet_groupconv.checkpoints import check_writable, write_json
from mmdet_groupconv.datasets.report import DataReport
from mmdet_groupconv.engine.data_inputs import data_reports
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import load_config
from mmdet_groupconv.engine.options import add_config_options

MODES = 'train', 'val', 'test'


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('--full', action='store_true', help='open every image, too')
    parser.add_argument('--json', metavar='FILE', help='also write what was found to this file')
    return parser.parse_args(argv)


def problem_table(reports: Iterable[DataReport]) -> Table:
    """Kind, number and first examples of all problems."""
    table = Table('data', 'problem', 'number', 'first examples', show_lines=True)
    for report in reports:
        for problem in report.problems:
            kind = f'[red]error[/]: {escape(problem.kind)}'
            if not problem.error:
                kind = f'[yellow]warning[/]: {escape(problem.kind)}'
            examples = escape('\n'.join(problem.examples))
            table.add_row(escape(report.source), kind, f'{problem.count:,}', examples)
    return table


def summary_table(reports: Iterable[DataReport]) -> Table:
    """How much there is of what."""
    table = Table('data', 'counts', 'boxes or images by class')
    for report in reports:
        if report.source:
            counts = '\n'.join(f'{name} {n:,}' for name, n in report.counts.items())
            boxes = ', '.join(f'{name} {n:,}' for name, n in report.boxes.items())
            table.add_row(escape(report.source), counts or 'not looked at', escape(boxes))
    return table


def as_dict(report: DataReport) -> dict:
    """For JSON."""
    problems = [vars(problem) for problem in report.problems]
    boxes = dict(report.boxes)
    return dict(source=report.source, problems=problems, counts=report.counts, boxes=boxes)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    console = Console(width=None if Console().is_terminal else 160)
    with user_errors():
        if args.json:
            check_writable(args.json, args.config)
        cfg = load_config(args)
        if not any(f'{mode}_dataloader' in cfg for mode in MODES):
            raise ValueError(f'config {args.config} has no train_, val_ or test_dataloader')
        reports = list(data_reports(cfg, MODES, args.full))
        if args.json:
            found = [as_dict(report) for report in reports if report.source or report.problems]
            write_json(args.json, found)
    problems = [problem for report in reports for problem in report.problems]
    errors = sum(problem.error for problem in problems)
    if problems:
        console.print(problem_table(reports))
    console.print(summary_table(reports))
    console.print(f'{errors} kinds of errors, {len(problems) - errors} of warnings')
    return 1 if errors else 0


if __name__ == '__main__':
    sys.exit(main())
