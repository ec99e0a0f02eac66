"""Train a detector: MMDetection's tools/train.py, with every input checked first."""

import argparse
import sys

from mmengine.config import Config

from mmdet_groupconv.engine.errors import run_errors, user_errors
from mmdet_groupconv.engine.launch import build_runner, load_config, use_amp
from mmdet_groupconv.engine.options import add_config_options, add_run_options


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector')
    add_config_options(parser)
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision, in bfloat16 on CPUs'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by the real batch size over the config's base_batch_size",
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or without a value from the latest in the work dir',
    )
    add_run_options(parser)
    return parser.parse_args(argv)


def configure(args: argparse.Namespace) -> Config:
    cfg = load_config(args)
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    if args.resume == 'auto':
        cfg.resume = 'auto'
    elif args.resume:
        cfg.resume, cfg.load_from = True, args.resume
    return cfg


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        cfg = configure(args)
        runner = build_runner(cfg, ('train', 'val') if cfg.get('val_dataloader') else ('train',))
    with run_errors():
        runner.train()
    return 0


if __name__ == '__main__':
    sys.exit(main())
