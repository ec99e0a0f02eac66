"""Time a config's network, eager and compact, beside the dense one: one process, in turn."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS
from mmengine.structures import InstanceData
from rich.console import Console
from rich.table import Table
from torch import nn

import mmdet_groupconv  # noqa: F401  (first: mmdet needs mmcv's ops)
from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.benchmark import (
    AbsentError,
    Runtime,
    Timing,
    compiled,
    describe,
    in_onnxruntime,
    in_runtime,
    interleaved,
    prepare,
    print_layers,
    set_mac_ratio,
    to_published_form,
    varying_share,
)
from mmdet_groupconv.checkpoints import check_writable, whole_file
from mmdet_groupconv.compiler import compact, explain
from mmdet_groupconv.engine import MACBudgetHook, MACRatioHook
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import build_model, load_config
from mmdet_groupconv.engine.options import add_config_options

DENSE = ('dense eager', 'dense compact', 'dense compiled', 'dense onnxruntime')
INFERENCE = ('compact', 'eager', 'published form', *DENSE)
TRAINING = ('ours', 'published form', 'dense eager')


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('--dense', help='config of the dense network; else found by its name')
    parser.add_argument('--part', choices=('backbone', 'detector'), default='backbone')
    parser.add_argument('--train', action='store_true', help='time training steps of the detector')
    parser.add_argument('--shape', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--ratio', type=float, help='set the MAC ratio of MSGC gates first')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--amp', choices=('fp16', 'bf16'), help='autocast')
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
    names = (*(TRAINING if args.train else INFERENCE), 'best dense')
    for case, factor in args.require:
        if case not in names:
            raise ValueError(f'--require {case!r}, expected one of {", ".join(map(repr, names))}')
        float(factor)
    if args.explain and args.train:
        raise ValueError('--explain is of inference, expected no --train beside it')
    if min(args.rounds, args.batch, args.threads) < 1:
        raise ValueError('--rounds, --batch and --threads are 1 or more')
    if min(args.shape) < 64:
        raise ValueError(f'--shape {args.shape[0]} {args.shape[1]}, expected 64 or more each')


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


def ready_model(cfg: Config, args: argparse.Namespace) -> nn.Module:
    """The config's detector with random weights, on the device."""
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(args.seed)
    model = build_model(cfg).to(args.device)
    with contextlib.redirect_stdout(None):
        model.init_weights()
    prepare(model, cfg, args.seed)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    return model


class Bench:
    """The inputs, and how a network is called with them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.device = args, torch.device(args.device)
        torch.manual_seed(args.seed)
        layout = torch.channels_last if args.channels_last else torch.contiguous_format
        images = torch.randn(args.batch, 3, *args.shape, device=self.device)
        self.images = images.contiguous(memory_format=layout)

    def autocast(self):
        dtype = torch.float16 if self.args.amp == 'fp16' else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.args.amp is not None)

    def samples(self, classes: int) -> list:
        """Annotated samples of random boxes, for the images; the same ones every time."""
        from mmdet.structures import DetDataSample

        torch.manual_seed(self.args.seed)
        (height, width), samples = self.args.shape, []
        for _ in range(self.args.batch):
            corners = torch.rand(8, 2, 2) * torch.tensor([width, height])
            boxes = torch.cat((corners.min(dim=1)[0], corners.max(dim=1)[0] + 8), dim=1)
            instances = InstanceData(bboxes=boxes, labels=torch.randint(classes, (8,)))
            sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (height, width))
            metainfo = dict(**sizes, batch_input_shape=(height, width), scale_factor=(1.0, 1.0))
            sample = DetDataSample(gt_instances=instances, metainfo=metainfo)
            sample.ignored_instances = InstanceData(
                bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)
            )
            samples.append(sample.to(self.device))
        return samples

    def inference(self, model: Callable) -> Callable[[], object]:
        """Of a backbone, to its maps, or of a detector, to the final boxes."""
        samples = self.samples(1) if self.args.part == 'detector' else None

        @torch.no_grad()
        def run():
            with self.autocast():
                if samples is None:
                    return model(self.images)
                return model(self.images, samples, mode='predict')

        return run

    def training(self, model: nn.Module, cfg: Config, hooks: bool) -> Callable[[], object]:
        """A whole step: forward, losses, backward, the config's optimizer.

        hooks: whether the config's hooks take part, which add a method's own losses.
        """
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        for group in optimizer.param_groups:
            group['lr'] = 0.0  # the same work, and every step does it on the same network
        if hooks:
            attach_hooks(model, cfg)
        head = getattr(model, 'bbox_head', None) or model.roi_head.bbox_head
        samples = self.samples(head.num_classes)
        model.train()

        def run():
            with self.autocast():
                losses = model(self.images, samples, mode='loss')
            optimizer.update_params(model.parse_losses(losses)[0])

        return run


def attach_hooks(model: nn.Module, cfg: Config) -> None:
    """Have the config's methods meter a model, and add their losses, as at the end of training."""
    runner = SimpleNamespace(model=model, message_hub=MessageHub.get_instance('benchmark'))
    for settings in cfg.get('custom_hooks') or []:
        hook = HOOKS.build({key: value for key, value in settings.items() if key != 'priority'})
        if isinstance(hook, MACRatioHook):
            hook.before_run(runner)
        if isinstance(hook, MACBudgetHook):
            hook.target_now = hook.target


def inference_cases(bench: Bench, ours: nn.Module, dense: nn.Module) -> tuple[dict, list[str]]:
    """What is timed, by name, and why other forms are not."""
    if bench.args.part == 'backbone':
        ours, dense = ours.backbone, dense.backbone

    def in_other(runtime: Runtime) -> Callable:
        with bench.autocast():
            if bench.args.part == 'backbone':
                return runtime(dense, bench.images)
            return in_runtime(dense, runtime, bench.images)

    def onnxruntime() -> Callable:
        if bench.device.type != 'cpu' or bench.args.amp:
            raise AbsentError('float32 on the CPU only')
        return in_other(in_onnxruntime)

    makers = {
        'compact': lambda: compact(ours),
        'eager': lambda: ours,
        'published form': lambda: to_published_form(ours),
        'dense eager': lambda: dense,
        'dense compact': lambda: compact(dense),
        'dense compiled': lambda: in_other(compiled),
        'dense onnxruntime': onnxruntime,
    }
    cases, absent = {}, []
    for name, make in makers.items():
        try:
            cases[name] = bench.inference(make())
        except AbsentError as error:
            absent.append(f'{name}: {error}')
    return cases, absent


def training_cases(bench: Bench, ours: nn.Module, dense: nn.Module, cfg: Config, dense_cfg: Config):
    """As :func:`inference_cases`."""
    published = to_published_form(ours)  # a copy, so before hooks are there
    cases = {
        'ours': bench.training(ours, cfg, hooks=True),
        'published form': bench.training(published, cfg, hooks=True),
        'dense eager': bench.training(dense, dense_cfg, hooks=False),
    }
    return cases, []


def print_table(console: Console, timings: dict[str, Timing], ours: str, title: str) -> None:
    table = Table('case', title=title, title_justify='left')
    for column in ('median [ms]', 'quartiles [ms]', f'/ {ours}', 'peak memory [MB]'):
        table.add_column(column, justify='right')
    for name, timing in sorted(timings.items(), key=lambda item: item[1].median):
        quartiles = ' ... '.join(f'{1000 * second:,.1f}' for second in timing.quartiles)
        peak = '-' if timing.peak is None else f'{timing.peak / 2**20:,.0f}'
        factor = timing.median / timings[ours].median
        table.add_row(name, f'{1000 * timing.median:,.1f}', quartiles, f'{factor:.2f}', peak)
    console.print(table)


def factors(timings: dict[str, Timing], ours: str) -> dict[str, float]:
    """How many times as long as ours each case takes; 'best dense' is the fastest dense one."""
    found = {name: timing.median / timings[ours].median for name, timing in timings.items()}
    return dict(found, **{'best dense': min(found[name] for name in DENSE if name in found)})


def unmet(args: argparse.Namespace, reached: dict[str, float], ours: str) -> list[str]:
    """The requirements that the figures don't meet."""
    return [
        f'{case} / {ours} is {reached.get(case, float("nan")):.2f}, required {factor}'
        for case, factor in args.require
        if not reached.get(case, 0.0) >= float(factor)
    ]


def write_figures(path: str, figures: dict) -> None:
    """As JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + '\n')


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    console = Console(width=None if Console().is_terminal else 120)
    MMLogger.get_current_instance().setLevel('WARNING')  # a line a parameter
    with user_errors():
        cfg, dense_cfg = load_config(args), dense_config(args)
        check(args)
        torch.set_num_threads(args.threads)
        torch.set_flush_denormal(True)  # of random weights; trained networks hardly make any
        model, dense = ready_model(cfg, args), ready_model(dense_cfg, args)
        bench = Bench(args)
        counted = model if args.part == 'detector' or args.train else model.backbone
        if args.ratio:
            set_mac_ratio(counted, bench.images, args.ratio)
    report = count_macs(counted, tuple(args.shape), bench.images)
    varying = varying_share(model.backbone, tuple(args.shape))
    if args.train:
        ours, (cases, absent) = 'ours', training_cases(bench, model, dense, cfg, dense_cfg)
    else:
        ours, (cases, absent) = 'compact', inference_cases(bench, model, dense)
    timings = interleaved(cases, args.rounds, bench.device)
    what = 'training step' if args.train else f'inference of the {args.part}'
    size = 'x'.join(str(number) for number in (args.batch, 3, *args.shape))
    print_table(console, timings, ours, f'{Path(args.config).stem}: {what}, {size}')
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
            layers=[layer._asdict() for layer in layers],
        )
        write_figures(args.out, figures)
    failures = unmet(args, reached, ours)
    for line in failures:
        console.print(f'[red]missed[/red]: {line}')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
