"""Test a detector: MMDetection's tools/test.py, with every input checked first."""

import argparse
import sys

from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from torch import nn

from mmdet_groupconv.checkpoints import check_writable
from mmdet_groupconv.compiler import compact
from mmdet_groupconv.engine.calibration import calibration_batches
from mmdet_groupconv.engine.errors import run_errors, user_errors
from mmdet_groupconv.engine.launch import (
    build_runner,
    drop_gate_hooks,
    load_config,
    save_predictions,
)
from mmdet_groupconv.engine.mac_ratio_hook import bare_model
from mmdet_groupconv.engine.optional import load_deploy
from mmdet_groupconv.engine.options import (
    add_config_options,
    add_freeze_options,
    add_run_options,
    check_freeze,
)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test (and evaluate) a detector')
    add_config_options(parser)
    parser.add_argument('checkpoint', help='checkpoint, or ONNX file of tools/export.py')
    parser.add_argument(
        '--compare', metavar='CHECKPOINT', help='test this too, and tell what the ONNX file changes'
    )
    parser.add_argument(
        '--runtime',
        choices=('onnxruntime', 'openvino'),
        help='of the file; what it was made for if not given',
    )
    parser.add_argument(
        '--precision',
        choices=('fp32', 'bf16', 'int8'),
        help='that the runtime computes in; likewise; int8 files are so by themselves; bf16 with '
        '--compact, too',
    )
    parser.add_argument(
        '--compact', action='store_true', help='do only the gated work; MACs are not counted then'
    )
    add_freeze_options(parser, 'test before and after')
    parser.add_argument('--out', help='write predictions to this .pkl file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='write painted images to work_dir/timestamp/SHOW_DIR')
    parser.add_argument('--wait-time', type=float, default=2, help='of --show, in seconds')
    add_run_options(parser)
    return parser.parse_args(argv)


def configure(args: argparse.Namespace) -> Config:
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out {args.out}: expected a name that ends in .pkl or .pickle')
    if args.out:
        check_writable(args.out, args.checkpoint)
    cfg = load_config(args)
    is_file = args.checkpoint.endswith('.onnx')
    if is_file and (args.compact or args.freeze is not None):
        raise ValueError(f'{args.checkpoint} is as it is, expected no --compact or --freeze')
    if (args.compare or args.runtime) and not is_file:
        raise ValueError(f'--compare or --runtime with {args.checkpoint}, expected an ONNX file')
    if args.precision and not is_file and (not args.compact or args.precision == 'int8'):
        raise ValueError(
            f'--precision {args.precision} with {args.checkpoint}, expected an ONNX file, or '
            '--compact with fp32 or bf16'
        )
    cfg.load_from = args.compare if is_file else args.checkpoint
    check_freeze(args)
    if args.compact or args.freeze is not None or is_file:
        drop_gate_hooks(cfg)
    return cfg


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        cfg = configure(args)
        detector = load_file(args) if args.checkpoint.endswith('.onnx') else None
        runner = build_runner(cfg, ('test',))
    if args.out:
        save_predictions(runner, args.out)
    with run_errors():
        if detector is not None:
            before = runner.test() if args.compare else {}
            runner.model = detector
            after = runner.test()
            if args.compare:
                print_change(before, after, 'checkpoint', 'file')
            return 0
        runner.load_or_resume()
        eager, precision = bare_model(runner), args.precision or 'fp32'
        if args.compact:
            runner.model = compact(eager, precision=precision)
        metrics = runner.test()
        if args.freeze is not None:
            with user_errors():
                batches = calibration_batches(runner.cfg, args.calibrate)
                runner.model = compact(eager, batches, args.freeze, precision)
            print_change(metrics, runner.test(), 'gates by image', 'frozen')
    return 0


def load_file(args: argparse.Namespace) -> nn.Module:
    """A detector's ONNX file; the packages for it are optional."""
    deploy = load_deploy()
    own = deploy.Runtime.of_file(args.checkpoint)
    runtime = deploy.Runtime(args.runtime or own.name, args.precision or own.precision)
    return deploy.FileDetector(args.checkpoint, runtime)


def print_change(before: dict[str, float], after: dict[str, float], one: str, other: str) -> None:
    """Metrics side by side, as a table."""
    table = Table('metric', one, other, 'change')
    for name, value in before.items():
        table.add_row(name, f'{value:.4f}', f'{after[name]:.4f}', f'{after[name] - value:+.4f}')
    Console().print(table)


if __name__ == '__main__':
    sys.exit(main())
