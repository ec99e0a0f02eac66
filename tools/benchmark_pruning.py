"""What channel pruning gives for the same MACs: by torch-pruning, with the same fine-tuning.

To set beside tools/group.py: mAP, and milliseconds of files. Needs ``pip install torch-pruning``,
which nothing else here does, and the extras ``export`` and ``openvino``.
"""

import argparse
import copy
import functools
import itertools
import os.path as osp
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.analysis.results import PRUNING
from mmdet_groupconv.benchmark import describe, interleaved
from mmdet_groupconv.checkpoints import load_weights, whole_file, write_json
from mmdet_groupconv.deploy import Report, Runtime, export_onnx, metadata
from mmdet_groupconv.deploy.runtime import RunningFile
from mmdet_groupconv.engine.calibration import (
    calibration_pixels,
    training_images,
    training_losses,
)
from mmdet_groupconv.engine.errors import run_errors, user_errors
from mmdet_groupconv.engine.grouped_config import scale_rate
from mmdet_groupconv.engine.launch import (
    build_model,
    build_runner,
    drop_gate_hooks,
    load_config,
    use_amp,
)
from mmdet_groupconv.engine.options import add_config_options, add_run_options, add_shape_option

_STEPS = 400  # so many at most, each prunes a little of what is left
_ROUNDS = 21  # of timing
RUNTIMES = Runtime('onnxruntime', 'fp32', 1), Runtime('openvino', 'int8', 1)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('checkpoint', help='weights of the dense detector')
    parser.add_argument('--macs', type=float, default=0.5, help='share of the MACs to be left')
    parser.add_argument('--calibrate', type=int, default=64, metavar='IMAGES', help='to judge by')
    parser.add_argument('--round-to', type=int, default=16, help='channels in multiples of')
    parser.add_argument('--teacher', help='checkpoint of the dense detector to distil from')
    parser.add_argument('--amp', action='store_true')
    add_shape_option(parser)
    parser.add_argument(
        '--beside', nargs='+', default=[], metavar='FILE', help='of tools/export.py, to be timed'
    )
    add_run_options(parser)
    return parser.parse_args(argv)


def prune(model: nn.Module, losses: Iterator[Tensor], args: argparse.Namespace) -> dict[str, float]:
    """Take whole channels out of a detector until `args.macs` of its MACs are left.

    By the first-order Taylor importance of coupled channels, over all layers; what predicts keeps
    its outputs. Returns the shares that are left, of the backbone and of all.
    """
    import torch_pruning as tp

    shape = tuple(args.shape)
    dense = _macs(model, shape)
    predicting = [
        module
        for name, module in model.named_modules()
        if name.split('.')[-1]
        in ('retina_cls', 'retina_reg', 'rpn_cls', 'rpn_reg', 'fc_cls', 'fc_reg')
    ]
    model.zero_grad()
    for loss in losses:
        loss.backward()
    pruner = tp.pruner.BasePruner(
        model.eval(),
        torch.zeros(1, 3, 128, 128),
        importance=tp.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=0.95,
        max_pruning_ratio=0.9,
        iterative_steps=_STEPS,
        ignored_layers=predicting,
        round_to=args.round_to,
        forward_fn=lambda model, x: model(x, mode='tensor'),
    )
    left = dict.fromkeys(dense, 1.0)
    for _ in range(_STEPS):
        if left['detector'] <= args.macs:
            break
        pruner.step()
        left = {part: macs / dense[part] for part, macs in _macs(model, shape).items()}
    model.zero_grad()
    return left


def _macs(model: nn.Module, shape: tuple[int, int]) -> dict[str, float]:
    report = count_macs(model, shape)
    return dict(backbone=report.parts['backbone'].macs, detector=report.macs)


def keep_weights(model: nn.Module) -> None:
    """A runner initialises what says that it wasn't yet."""
    for module in model.modules():
        if isinstance(module, BaseModule):
            module.is_init = True


def write_files(
    networks: dict[str, nn.Module], cfg: Config, args: argparse.Namespace
) -> dict[str, Report]:
    """Each network as a float32 and as an int8 file in the work directory; what was found."""
    images = calibration_pixels(cfg, args.calibrate)
    reports = {}
    for runtime, (name, network) in itertools.product(RUNTIMES, networks.items()):
        about = dict(config=args.config, runtime=runtime.name, precision=runtime.precision)
        about |= metadata(cfg, 'detector')
        file = osp.join(cfg.work_dir, f'{name}-{runtime.precision}.onnx')
        reports[file] = export_onnx(
            network, file, tuple(args.shape), runtime, image=images[0], about=about, images=images
        )
    return reports


def time_files(files: Iterable[str], shape: tuple[int, int]) -> dict[str, float]:
    """Milliseconds of files on noise, one thread: medians of interleaved calls."""
    image = np.random.default_rng(0).integers(256, size=(1, 3, *shape), dtype=np.uint8)
    runs = {}
    for file in files:
        running = RunningFile(file, Runtime.of_file(file)._replace(threads=1))
        runs[file] = functools.partial(running, image)
    found = interleaved(runs, _ROUNDS, torch.device('cpu'))
    return {file: 1000 * timing.median for file, timing in found.items()}


def write_figures(file: str, report: Report, times: dict[str, float], shape: list[int]) -> None:
    """What results.py reads of a file, beside it; beside its time that of the dense detector's."""
    runtime = Runtime.of_file(file)._replace(threads=1)
    dense = osp.join(osp.dirname(file), f'dense-{runtime.precision}.onnx')
    figures = report.figures(file, 'detector', shape, runtime)
    figures.update(milliseconds=times[file], dense_milliseconds=times[dense])
    figures.update(machine=describe(torch.device('cpu')))
    write_json(Path(file).with_suffix('.json'), figures)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        cfg = load_config(args)
        model = build_model(cfg)
        load_weights(model, args.checkpoint)
        dense = copy.deepcopy(model)
        left = prune(model, training_losses(model, training_images(cfg, args.calibrate)), args)
        print(f'{left["detector"]:.3f} of the MACs are left')
        drop_gate_hooks(cfg)
        if args.teacher:  # the neck has other channels
            source = dict(config=osp.abspath(args.config), checkpoint=osp.abspath(args.teacher))
            hook = dict(type='DistillationHook', **source, neck=0.0, start=0.0, stop=0.5)
            cfg.custom_hooks.append(hook)
        scale_rate(cfg)
        if args.amp:
            use_amp(cfg)
        runner = build_runner(cfg, ('train', 'val'))
        keep_weights(model)
        runner.model = runner.wrap_model(cfg.get('model_wrapper_cfg'), model)
    with run_errors():
        runner.train()
    folder = Path(cfg.work_dir)
    with whole_file(folder / 'pruned.pt') as path:
        torch.save(model, path)  # its shapes are in no config
    reports = write_files(dict(pruned=model.eval(), dense=dense.eval()), cfg, args)
    times = time_files([*reports, *args.beside], args.shape)
    for file, report in reports.items():
        write_figures(file, report, times, args.shape)
    for name, milliseconds in times.items():
        print(f'{milliseconds:.1f} ms: {name}')
    scalars = runner.message_hub.log_scalars
    scores = {k: float(v.current()) for k, v in scalars.items() if k.startswith('val/coco/')}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    figures = dict(macs=left, parameters=parameters, milliseconds=times, **scores)
    write_json(folder / PRUNING, figures)
    return 0


if __name__ == '__main__':
    sys.exit(main())
