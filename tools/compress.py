"""From a trained dense detector to a file that finds as much with less work.

Calls tools/group.py, train.py, export.py and test.py, one after the other. What was finished is not
done again: after an interruption the same command goes on.
"""

import argparse
import json
import os.path as osp
import shlex
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from mmdet_groupconv.analysis.pictures import read_run
from mmdet_groupconv.checkpoints import write_json
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import load_config
from mmdet_groupconv.engine.optional import load_deploy
from mmdet_groupconv.engine.options import add_config_options, add_shape_option, check_shape

_TOOLS = Path(__file__).resolve().parent
_METHODS = 'sgc', 'fixed', 'flgc', 'msgc'  # whose files do the same work for every image
_OF_ONE_FILE = 'out', 'runtime', 'precision'  # a folder may have files for several


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_options(parser)
    parser.add_argument('checkpoint', help='weights of the dense detector')
    parser.add_argument('--out', required=True, help='folder for all that is written')
    parser.add_argument(
        '--method', choices=_METHODS, default='sgc', help='gates of msgc are frozen half-way'
    )
    parser.add_argument('--macs', type=float, default=0.5, help='share of the MACs to be left')
    parser.add_argument('--align', type=int, help='see tools/group.py')
    parser.add_argument('--teacher', help='see tools/group.py')
    parser.add_argument(
        '--epochs', type=int, help='see tools/group.py; 0 for a file without any training'
    )
    parser.add_argument('--amp', action='store_true', help='see tools/train.py')
    parser.add_argument('--runtime', choices=('onnxruntime', 'openvino'), default='openvino')
    parser.add_argument('--precision', choices=('fp32', 'bf16', 'int8'), default='int8')
    parser.add_argument('--calibrate', type=int, help='see tools/export.py')
    parser.add_argument('--threads', type=int, default=1, help='see tools/export.py')
    add_shape_option(parser, 'size of image to make the file fast for; it takes any')
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Raise OSError, ValueError or ImportError for what would else fail after the grouping."""
    check_shape(args)
    loop = load_config(args).get('train_cfg') or {}
    if not loop.get('max_epochs'):
        raise ValueError(
            f'{args.config}: train_cfg={dict(loop)}, expected a loop with max_epochs; others train '
            'by tools/group.py and tools/train.py'
        )
    if args.epochs == 0 and args.method == 'msgc':
        raise ValueError('--epochs 0 with --method msgc, whose gates close in training, expected 1')
    if args.threads < 1:
        raise ValueError(f'--threads {args.threads}, expected 1 or more')
    load_deploy().Runtime(args.runtime, args.precision, args.threads).check()
    if osp.exists(args.out) and not osp.isdir(args.out):
        raise ValueError(f'--out {args.out} is a file, expected a folder')


def settings_of(args: argparse.Namespace) -> dict[str, object]:
    """What all in the folder is made with, as JSON has it."""
    lasting = {name: value for name, value in vars(args).items() if name not in _OF_ONE_FILE}
    return json.loads(json.dumps(lasting))


def check_settings(noted: Path, wanted: dict[str, object]) -> None:
    """Raise ValueError where the folder holds what was made in another way."""
    found = json.loads(noted.read_text()) if noted.is_file() else wanted
    for name, value in wanted.items():
        if found.get(name) != value:
            raise ValueError(
                f'{noted} has {name} {found.get(name)}, expected {value}, or another folder for '
                '--out'
            )


def call(tool: str, *arguments: object) -> None:
    """Run one of the tools; where it fails, which it has said itself, exit as it did."""
    words = [str(_TOOLS / f'{tool}.py'), *map(str, arguments)]
    print(f'\n{shlex.join(["python", *words])}', flush=True)
    done = subprocess.run([sys.executable, *words], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def options(args: argparse.Namespace, *names: str) -> list[object]:
    """Those of the command line, as another tool takes them."""
    found = []
    for name in names:
        value = getattr(args, name)
        if value is not None:
            found += [f'--{name}', *(value if isinstance(value, list | tuple) else [value])]
    return found


def test(work_dir: Path, *arguments: object) -> dict[str, float]:
    """What tools/test.py finds, once it has ended."""
    whole = work_dir / 'metrics.json'  # MMEngine's own has its name before it is written
    if not whole.is_file():
        call('test', *arguments, '--work-dir', work_dir)
        latest = max(work_dir.glob('*/*.json'))
        write_json(whole, json.loads(latest.read_text()))
    return {key: value for key, value in json.loads(whole.read_text()).items() if 'AP' in key}


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    out = Path(args.out)
    noted, grouped, tuned = out / 'settings.json', out / 'grouped', out / 'tuned'
    file = out / f'{args.runtime}-{args.precision}.onnx'
    with user_errors():
        check(args)
        check_settings(noted, settings_of(args))
    dense = [args.config, args.checkpoint]
    settings = [f'{key}={value}' for key, value in (args.cfg_options or {}).items()]
    settings = ['--cfg-options', *settings] if settings else []
    config = grouped / 'config.py'
    if not config.is_file():
        how = options(args, 'method', 'macs', 'align', 'teacher')
        how += options(args, 'epochs') if args.epochs != 0 else []
        frozen = ['--freeze-gates'] if args.method == 'msgc' else []
        call('group', *dense, *how, *frozen, '--out', grouped, *settings)
    write_json(noted, settings_of(args))
    weights = tuned / f'epoch_{Config.fromfile(config).train_cfg.max_epochs}.pth'
    if args.epochs == 0:
        weights = grouped / 'grouped.pth'
    elif not weights.is_file():
        call('train', config, '--work-dir', tuned, '--resume', *(['--amp'] if args.amp else []))
    figures = file.with_suffix('.json')
    if not figures.is_file():
        how = options(args, 'runtime', 'precision', 'threads', 'calibrate', 'shape')
        call('export', config, weights, '--out', file, *how)
    before = test(out / 'tested/dense', *dense, *settings)
    after = test(out / 'tested' / file.stem, config, file)
    macs = planned_macs(grouped) if args.epochs == 0 else trained_macs(tuned)
    found = summary(before, after, figures, macs)
    write_json(out / f'{file.stem}-summary.json', found)
    show(found, file)
    return 0


def planned_macs(grouped: Path) -> float:
    """The share of the detector's that its groups leave."""
    return json.loads((grouped / 'plan.json').read_text())['detector']


def trained_macs(tuned: Path) -> float:
    """The share of the detector's at the end of its training."""
    run, name = read_run(tuned), 'mac_ratio_detector'
    _, ratios = run.val.get(name) or run.train[name]
    return ratios[-1]


def summary(before: dict, after: dict, figures: Path, macs: float) -> dict[str, dict]:
    """Of the dense detector and of the file."""
    of_file = json.loads(figures.read_text())
    return dict(
        dense=dict(before, macs=1.0, milliseconds=of_file['dense_milliseconds']),
        file=dict(after, macs=macs, milliseconds=of_file['milliseconds']),
    )


def show(found: dict[str, dict], file: Path) -> None:
    """As a table."""
    table = Table('', 'dense', 'file', title=str(file), title_justify='left')
    for key, value in found['dense'].items():
        digits = 0 if key == 'milliseconds' else 3
        table.add_row(key, f'{value:.{digits}f}', f'{found["file"][key]:.{digits}f}')
    Console().print(table)


if __name__ == '__main__':
    sys.exit(main())
