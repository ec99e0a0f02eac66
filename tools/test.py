"""Test a detector: MMDetection's tools/test.py, with every input checked first."""

import argparse
import sys

from mmengine.config import Config

from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import (
    add_config_options,
    add_run_options,
    build_runner,
    compact_model,
    drop_mac_hooks,
    load_config,
    save_predictions,
)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test (and evaluate) a detector')
    add_config_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--compact', action='store_true', help='do only the gated work; MACs are not counted then'
    )
    parser.add_argument('--out', help='write predictions to this .pkl file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='write painted images to work_dir/timestamp/SHOW_DIR')
    parser.add_argument('--wait-time', type=float, default=2, help='of --show, in seconds')
    add_run_options(parser)
    return parser.parse_args(argv)


def configure(args: argparse.Namespace) -> Config:
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out {args.out}: expected a name that ends in .pkl or .pickle')
    cfg = load_config(args)
    cfg.load_from = args.checkpoint
    if args.compact:
        drop_mac_hooks(cfg)
    return cfg


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        runner = build_runner(configure(args), ('test',))
    if args.compact:
        compact_model(runner)
    if args.out:
        save_predictions(runner, args.out)
    runner.test()
    return 0


if __name__ == '__main__':
    sys.exit(main())
