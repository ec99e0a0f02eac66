"""Draw what one or several runs logged: loss, accuracy, MAC ratio, gates; speed and accuracy."""

import argparse
import sys
from pathlib import Path

from mmdet_groupconv.analysis.pictures import (
    plot_density_history,
    plot_runs,
    plot_speed_accuracy,
    read_points,
    read_runs,
    save,
)
from mmdet_groupconv.engine.errors import user_errors


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='*', metavar='WORK_DIR', help='of a run')
    parser.add_argument('--out', required=True, help='folder for the pictures')
    parser.add_argument(
        '--results', nargs='+', default=[], metavar='FILE', help='JSON files of accuracy and cost'
    )
    parser.add_argument('--format', choices=('png', 'svg', 'pdf'), default='png')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    figures = {}
    with user_errors():
        if not args.work_dirs and not args.results:
            raise ValueError('expected a WORK_DIR or --results FILE')
        runs = read_runs(args.work_dirs)
        if runs:
            figures['runs'] = plot_runs(runs)
        for run in runs:
            if run.densities():
                step = 'epoch' if run.by_epoch else 'iteration'
                figures[f'gates_{run.name.replace("/", "_")}'] = plot_density_history(
                    run.densities(), step
                )
        if args.results:
            figures['speed_accuracy'] = plot_speed_accuracy(*read_points(args.results))
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            save(figure, out / f'{name}.{args.format}')
            print(out / f'{name}.{args.format}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
