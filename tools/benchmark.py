"""Time a config's network, eager and compact, beside the dense one: one process, in turn."""

import argparse
import json
import logging
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData
from rich.console import Console
from rich.table import Table
from torch import nn

import mmdet_groupconv  # noqa: F401  (first: mmdet needs mmcv's ops)
from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.benchmark import (
    AbsentError,
    HeadOutputs,
    Timing,
    compiled,
    in_onnxruntime,
    interleaved,
    prepare,
    set_mac_ratio,
    to_published_form,
)
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import add_config_options, build_model, load_config
from mmdet_groupconv.inference import compact

DENSE = ('dense eager', 'dense compact', 'dense compiled', 'dense onnxruntime')


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


def dense_config(args: argparse.Namespace) -> Config:
    """The config of the dense detector under the same schedule."""
    path = args.dense
    if not path:
        folder, name = os.path.split(args.config)
        detector, host, *rest = name.split('_')
        rest = [word for word in rest if word != 'whole']
        path = os.path.join(folder, '_'.join((detector, host.split('-')[-1], *rest)))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'dense config {path} not found, name one with --dense')
    return Config.fromfile(path)


def ready_model(cfg: Config, args: argparse.Namespace) -> nn.Module:
    """The config's detector with random weights, on the device."""
    cfg.model.backbone.init_cfg = None
    model = build_model(cfg).to(args.device)
    logging.disable(logging.INFO)  # a line a parameter
    model.init_weights()
    logging.disable(logging.NOTSET)
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
        """Annotated samples of random boxes, for the images."""
        from mmdet.structures import DetDataSample

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

    def inference(self, model: nn.Module) -> Callable[[], object]:
        """Of a backbone, to its maps, or of a detector, to the final boxes."""
        samples = self.samples(1) if self.args.part == 'detector' else None

        @torch.no_grad()
        def run():
            with self.autocast():
                if samples is None:
                    return model(self.images)
                return model(self.images, samples, mode='predict')

        return run

    def training(self, model: nn.Module, cfg: Config) -> Callable[[], object]:
        """A whole step: forward, losses, backward, the config's optimizer."""
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        head = getattr(model, 'bbox_head', None) or model.roi_head.bbox_head
        samples = self.samples(head.num_classes)

        def run():
            model.train()
            with self.autocast():
                losses = model(self.images, samples, mode='loss')
            optimizer.update_params(model.parse_losses(losses)[0])

        return run

    def onnxruntime(self, model: nn.Module) -> Callable[[], object]:
        """A dense backbone, or a one-stage detector with the boxes decoded by PyTorch."""
        if self.args.part == 'backbone':
            session = in_onnxruntime(model, self.images, self.args.threads)
            return lambda: session(self.images)
        if not hasattr(model, 'bbox_head'):
            raise AbsentError('onnxruntime: one-stage detectors only')
        session = in_onnxruntime(HeadOutputs(model), self.images, self.args.threads)
        metas = [sample.metainfo for sample in self.samples(1)]

        def run():
            maps = session(self.images)
            levels = len(maps) // 2
            return model.bbox_head.predict_by_feat(
                maps[:levels], maps[levels:], batch_img_metas=metas, rescale=True
            )

        return run


def inference_cases(bench: Bench, ours: nn.Module, dense: nn.Module) -> tuple[dict, list[str]]:
    """What is timed, by name, and why other forms are not."""
    if bench.args.part == 'backbone':
        ours, dense = ours.backbone, dense.backbone
    makers = {
        'compact': lambda: bench.inference(compact(ours)),
        'eager': lambda: bench.inference(ours),
        'published form': lambda: bench.inference(to_published_form(ours)),
        'dense eager': lambda: bench.inference(dense),
        'dense compact': lambda: bench.inference(compact(dense)),
    }
    plain_cpu = bench.device.type == 'cpu' and not bench.args.amp
    if bench.args.part == 'backbone':
        makers['dense compiled'] = lambda: bench.inference(compiled(dense))
    if plain_cpu:
        makers['dense onnxruntime'] = lambda: bench.onnxruntime(dense)
    cases, absent = {}, []
    for name, make in makers.items():
        try:
            cases[name] = make()
        except AbsentError as error:
            absent.append(f'{name}: {error}')
    return cases, absent


def training_cases(bench: Bench, ours: nn.Module, dense: nn.Module, cfg: Config, dense_cfg: Config):
    """As :func:`inference_cases`."""
    cases = {
        'ours': bench.training(ours, cfg),
        'published form': bench.training(to_published_form(ours), cfg),
        'dense eager': bench.training(dense, dense_cfg),
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


def machine(args: argparse.Namespace) -> dict[str, object]:
    """What the figures hold for."""
    device = torch.device(args.device)
    cuda = device.type == 'cuda'
    return dict(
        device=torch.cuda.get_device_name(device) if cuda else platform.processor() or 'CPU',
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=args.threads,
        torch=torch.__version__,
        python=platform.python_version(),
    )


def unmet(args: argparse.Namespace, medians: dict[str, float], ours: str) -> list[str]:
    """The requirements that the figures don't meet."""
    dense = [medians[name] for name in DENSE if name in medians]
    reached = {name: median / medians[ours] for name, median in medians.items()}
    reached['best dense'] = min(dense) / medians[ours]
    return [
        f'{case} / {ours} is {reached.get(case, float("nan")):.2f}, required {factor}'
        for case, factor in args.require
        if not reached.get(case, 0.0) >= float(factor)
    ]


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    console = Console(width=None if Console().is_terminal else 120)
    with user_errors():
        cfg, dense_cfg = load_config(args), dense_config(args)
        model, dense = ready_model(cfg, args), ready_model(dense_cfg, args)
        bench = Bench(args)
        counted = model if args.part == 'detector' or args.train else model.backbone
        if args.ratio:
            set_mac_ratio(counted, bench.images, args.ratio)
    report = count_macs(counted, tuple(args.shape), bench.images)
    if args.train:
        ours, (cases, absent) = 'ours', training_cases(bench, model, dense, cfg, dense_cfg)
    else:
        ours, (cases, absent) = 'compact', inference_cases(bench, model, dense)
    timings = interleaved(cases, args.rounds, bench.device)
    what = 'training step' if args.train else f'inference of the {args.part}'
    size = 'x'.join(str(number) for number in (args.batch, 3, *args.shape))
    print_table(console, timings, ours, f'{Path(args.config).stem}: {what}, {size}')
    console.print(f'MACs {report.macs / 1e9:.2f} G of {report.original / 1e9:.2f} G, ', end='')
    console.print(f'ratio {report.ratio:.3f}; {machine(args)}')
    for line in absent:
        console.print(f'not timed: {line}')
    if args.out:
        figures = dict(
            config=args.config,
            arguments=vars(args),
            machine=machine(args),
            macs=report.macs,
            dense_macs=report.original,
            ratio=report.ratio,
            absent=absent,
            cases={
                name: dict(seconds=timing.seconds, median=timing.median, peak=timing.peak)
                for name, timing in timings.items()
            },
        )
        temporary = Path(f'{args.out}.tmp')
        temporary.write_text(json.dumps(figures, indent=1) + '\n')
        temporary.replace(args.out)
    failures = unmet(args, {name: timing.median for name, timing in timings.items()}, ours)
    for line in failures:
        console.print(f'[red]missed[/red]: {line}')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
