"""Time a config's network, eager and compact, beside the dense one: one process, in turn."""

import argparse
import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from rich.console import Console

from mmdet_groupconv.benchmark import (
    PRECISIONS,
    TRAINING,
    Bench,
    by_precision,
    describe,
    factors,
    inference_cases,
    interleaved,
    names_of,
    print_best,
    print_layers,
    print_timings,
    set_mac_ratio,
    training_cases,
    varying_share,
)
from mmdet_groupconv.checkpoints import check_writable, write_json
from mmdet_groupconv.compiler import compact, explain
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import load_config
from mmdet_groupconv.engine.options import add_config_options, add_shape_option, check_shape
from mmdet_groupconv.macs import count_macs


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('--dense', help='config of the dense network; else found by its name')
    parser.add_argument(
        '--checkpoint',
        help='trained weights of the config; else they are random, as the dense ones',
    )
    parser.add_argument('--part', choices=('backbone', 'detector'), default='backbone')
    parser.add_argument('--train', action='store_true', help='time training steps of the detector')
    add_shape_option(parser)
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--ratio', type=float, help='set the MAC ratio of MSGC gates first')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--amp', choices=('fp16', 'bf16'), help='autocast')
    parser.add_argument(
        '--precision',
        nargs='+',
        choices=PRECISIONS,
        default=[],
        help='also time files of both networks in the runtimes that have these',
    )
    parser.add_argument(
        '--freeze', type=float, metavar='KEEP', help='fix gates by image first, as tools/export.py'
    )
    parser.add_argument('--channels-last', action='store_true', help='for the eager networks')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--explain', action='store_true', help='tell how each layer of the compact network is run'
    )
    parser.add_argument('--out', help='also write the figures to this JSON file')
    parser.add_argument(
        '--require',
        nargs=2,
        action='append',
        default=[],
        metavar=('CASE', 'FACTOR'),
        help='exit with status 1 unless ours takes FACTOR times less than this case; "best dense" '
        'is the fastest of the dense ones',
    )
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for what would else fail after minutes of timing."""
    if args.out:
        check_writable(args.out, args.config)
    names = (*(TRAINING if args.train else names_of(args.precision)), 'best dense')
    for case, factor in args.require:
        if case not in names:
            raise ValueError(f'--require {case!r}, expected one of {", ".join(map(repr, names))}')
        float(factor)
    if args.train and (args.precision or args.freeze is not None):
        raise ValueError('--precision and --freeze are of inference, expected no --train')
    if args.checkpoint and args.ratio:
        raise ValueError('--ratio is of random weights, expected no --checkpoint beside it')
    if args.freeze is not None and not 0 <= args.freeze <= 1:
        raise ValueError(f'--freeze {args.freeze}, expected a share from 0 to 1')
    if args.explain and args.train:
        raise ValueError('--explain is of inference, expected no --train beside it')
    if min(args.rounds, args.batch, args.threads) < 1:
        raise ValueError('--rounds, --batch and --threads are 1 or more')
    check_shape(args)


def dense_config(args: argparse.Namespace) -> Config:
    """The config of the dense detector under the same schedule."""
    path = args.dense
    if not path:
        folder, name = os.path.split(args.config)
        if '_' not in name:
            raise ValueError(f'no dense config is known for {args.config}, name one with --dense')
        detector, host, *rest = name.split('_')
        rest = [word for word in rest if word != 'whole']
        path = os.path.join(folder, '_'.join((detector, host.split('-')[-1], *rest)))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'dense config {path} not found, name one with --dense')
    return Config.fromfile(path)


def unmet(args: argparse.Namespace, reached: dict[str, float], ours: str) -> list[str]:
    """The requirements that the figures don't meet."""
    return [
        f'{case} / {ours} is {reached.get(case, float("nan")):.2f}, required {factor}'
        for case, factor in args.require
        if not reached.get(case, 0.0) >= float(factor)
    ]


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    console = Console(width=None if Console().is_terminal else 120)
    MMLogger.get_current_instance().setLevel('WARNING')  # a line a parameter
    with user_errors():
        cfg, dense_cfg = load_config(args), dense_config(args)
        check(args)
        torch.set_num_threads(args.threads)
        torch.set_flush_denormal(True)  # of random weights; trained networks hardly make any
        bench = Bench(
            **{name: getattr(args, name) for name in ('shape', 'batch', 'part', 'device', 'amp')},
            channels_last=args.channels_last,
            seed=args.seed,
        )
        model, dense = bench.network(cfg, args.checkpoint), bench.network(dense_cfg)
        counted = model if args.part == 'detector' or args.train else model.backbone
        if args.ratio:
            set_mac_ratio(counted, bench.images, args.ratio)
        if args.freeze is not None:
            bench.freeze(model, args.freeze)
    report = count_macs(counted, tuple(args.shape), bench.images)
    varying = varying_share(model.backbone, tuple(args.shape))
    if args.train:
        ours, (cases, absent) = 'ours', training_cases(bench, model, dense, cfg, dense_cfg)
    else:
        ours, (cases, absent) = 'compact', inference_cases(bench, model, dense, args.precision)
    timings = interleaved(cases, args.rounds, bench.device)
    what = 'training step' if args.train else f'inference of the {args.part}'
    size = 'x'.join(str(number) for number in (args.batch, 3, *args.shape))
    print_timings(console, timings, ours, f'{Path(args.config).stem}: {what}, {size}')
    best = {} if args.train else by_precision(timings)
    if args.precision:
        print_best(console, best)
    layers = []
    if args.explain:
        network = model if args.part == 'detector' else model.backbone
        layers = explain(compact(network), lambda network: bench.inference(network)())
        print_layers(console, layers)
    reached, machine = factors(timings, ours), describe(bench.device)
    console.print(f'MACs {report.macs / 1e9:.2f} G of {report.original / 1e9:.2f} G, ', end='')
    console.print(f'ratio {report.ratio:.3f}; best dense / {ours} {reached["best dense"]:.2f}')
    if varying is not None:
        console.print(f'gates of the backbone that differ between random images: {varying:.2f}')
    console.print('; '.join(f'{name} {value}' for name, value in machine.items()))
    for line in absent:
        console.print(f'not timed: {line}')
    if args.out:
        figures = dict(
            config=args.config,
            arguments=vars(args),
            machine=machine,
            macs=report.macs,
            dense_macs=report.original,
            ratio=report.ratio,
            varying_gates=varying,
            absent=absent,
            cases={
                name: dict(timing._asdict(), median=timing.median, quartiles=timing.quartiles)
                for name, timing in timings.items()
            },
            factors=reached,
            best=best,
            layers=[layer._asdict() for layer in layers],
        )
        write_json(args.out, figures)
    failures = unmet(args, reached, ours)
    for line in failures:
        console.print(f'[red]missed[/red]: {line}')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
