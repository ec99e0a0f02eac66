"""One self-contained HTML page about a run, or several side by side."""

import argparse
import sys
from pathlib import Path

from mmdet_groupconv.analysis.report import examine, render_page
from mmdet_groupconv.checkpoints import whole_file, write_json
from mmdet_groupconv.engine.errors import user_errors


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='of a finished run')
    parser.add_argument('--out', required=True, help='the page; its figures go beside it, as .json')
    parser.add_argument(
        '--images', type=int, default=16, help='test images that MACs and gates are means over'
    )
    parser.add_argument('--samples', type=int, default=4, help='test images painted for each run')
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    out = Path(args.out)
    if out.suffix not in ('.html', '.htm'):
        raise ValueError(f'--out {out}: expected a name that ends in .html')
    if not out.parent.is_dir():
        raise ValueError(f'--out {out}: folder {out.parent} not found')
    for name in ('images', 'samples'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} {getattr(args, name)}: expected 1 or more')


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        check_arguments(args)
        runs = [examine(folder, args.images, args.samples) for folder in args.work_dirs]
    out = Path(args.out)
    with whole_file(out) as file:
        file.write_text(render_page(runs))
    write_json(out.with_suffix('.json'), [run.to_dict() for run in runs])
    print(out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
