"""Group a trained dense detector for a budget of MACs, ready to be fine-tuned."""

import argparse
import os.path as osp
import sys
import tempfile
from pathlib import Path

from mmengine.config import Config

from mmdet_groupconv.analysis.plan_table import print_plan
from mmdet_groupconv.checkpoints import (
    check_fit,
    read_checkpoint,
    whole_file,
    write_checkpoint,
    write_json,
)
from mmdet_groupconv.engine.data_inputs import check_data
from mmdet_groupconv.engine.epochs import train_for
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.group_detector import (
    GroupedDetector,
    Settings,
    group_detector,
    self_grouped_detector,
)
from mmdet_groupconv.engine.grouped_config import METHODS
from mmdet_groupconv.engine.launch import build_model, build_runner, load_config
from mmdet_groupconv.engine.options import add_config_options, add_shape_option, check_shape


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('checkpoint', help='weights of the dense detector')
    parser.add_argument('--method', required=True, choices=METHODS)
    parser.add_argument('--macs', type=float, default=0.5, help='share of the MACs to be left')
    parser.add_argument(
        '--percentage',
        type=float,
        help="of SGC: prune as published, the same percentage of every layer's connections",
    )
    parser.add_argument('--step', type=float, default=10, help='of --percentage at a time')
    parser.add_argument('--scope', choices=('backbone', 'detector'), default='detector')
    parser.add_argument(
        '--align', type=int, default=16, help='groups have multiples of so many channels, filters'
    )
    parser.add_argument(
        '--importance',
        choices=('taylor', 'magnitude'),
        default='taylor',
        help='of connections: how much the loss would rise, or weights times activations',
    )
    parser.add_argument(
        '--calibrate', type=int, default=64, metavar='IMAGES', help='of training, to judge by'
    )
    parser.add_argument('--images', help='folder of images without labels, to judge by instead')
    parser.add_argument(
        '--teacher', help='checkpoint of the same detector, better trained, to distil from'
    )
    parser.add_argument(
        '--freeze-gates',
        action='store_true',
        help='of MSGC: the same for every image from half of the fine-tuning on, as in files',
    )
    parser.add_argument(
        '--epochs', type=int, help="of the fine-tuning, in the place of the config's"
    )
    size = 'that MACs are counted for; as images that connections are judged by, if not given'
    add_shape_option(parser, size, default=None)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--evaluate',
        action='store_true',
        help="test where the fine-tuning starts on the config's data",
    )
    parser.add_argument('--out', required=True, help='folder for config.py, grouped.pth, plan.json')
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for what would else fail after minutes of work."""
    if not 0 < args.macs < 1:
        raise ValueError(f'--macs {args.macs}, expected a share between 0 and 1')
    if args.percentage is not None and args.method != 'sgc':
        raise ValueError(f'--percentage with --method {args.method}, expected --method sgc')
    if args.freeze_gates and args.method != 'msgc':
        raise ValueError(f'--freeze-gates with --method {args.method}, expected --method msgc')
    for name, least in (('align', 1), ('calibrate', 1), ('seed', 0)):
        if getattr(args, name) < least:
            raise ValueError(f'--{name} {getattr(args, name)}, expected {least} or more')
    check_shape(args)
    if osp.exists(args.out) and not osp.isdir(args.out):
        raise ValueError(f'--out {args.out} is a file, expected a folder')


def classes_of(meta: dict) -> list[str]:
    """What a checkpoint of MMDetection says that it tells apart; empty where it says nothing."""
    about = {key.lower(): value for key, value in (meta.get('dataset_meta') or {}).items()}
    return list(about.get('classes') or ())


def check_teacher(path: str, cfg: Config, classes: list[str]) -> None:
    """Raise FileNotFoundError or ValueError where it isn't the detector of `cfg` and `classes`."""
    state, meta = read_checkpoint(path)
    check_fit(build_model(cfg), state, path)
    found = classes_of(meta)
    if found and classes and found != classes:
        raise ValueError(
            f'--teacher {path} knows the classes {", ".join(found[:5])}, expected '
            f'{", ".join(classes[:5])}, in this order'
        )


def evaluate(config: str) -> None:
    """Test a written config with the weights that its fine-tuning starts from."""
    cfg = Config.fromfile(config)
    cfg.launcher = 'none'
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        build_runner(cfg, ('test',)).test()


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        check(args)
        cfg = load_config(args)
        if args.epochs is not None:
            train_for(cfg, args.epochs)
        state, meta = read_checkpoint(args.checkpoint)
        if args.teacher is not None:
            check_teacher(args.teacher, cfg, classes_of(meta))
        if args.images is None and args.percentage is None:
            check_data(cfg, ('train',))
        settings = Settings(
            args.method, args.macs, args.scope, args.align, args.importance, args.calibrate,
            args.shape and tuple(args.shape), args.seed, args.images,
        )  # fmt: skip
        source = cfg, state, args.checkpoint
        if args.percentage is None:
            done = group_detector(*source, settings)
        else:
            done = self_grouped_detector(*source, args.percentage, args.step, settings)
        if args.freeze_gates:
            done.config.custom_hooks.append(dict(type='FreezeGatesHook'))
        unlabelled = cfg.train_dataloader.dataset.type == 'ImageFiles'
        teacher = args.teacher or (args.checkpoint if unlabelled else None)
        if teacher:
            source = dict(config=osp.abspath(args.config), checkpoint=osp.abspath(teacher))
            # With labels, a teacher brings AP back soon, and later holds it down to its own.
            how = dict(labels=False) if unlabelled else dict(start=0.0, stop=0.5)
            hook = dict(type='DistillationHook', **source, **how)
            done.config.custom_hooks.append(hook)
        write(done, Path(args.out), meta)
    print_plan(done.plan, f'{args.out}: {args.method}')
    if args.evaluate:
        with user_errors():
            evaluate(str(Path(args.out) / 'config.py'))
    return 0


def write(done: GroupedDetector, out: Path, meta: dict) -> None:
    """The three files, each whole."""
    out.mkdir(parents=True, exist_ok=True)
    done.config.load_from = osp.abspath(out / 'grouped.pth')
    done.config.pop('work_dir')  # of the folder that the config is trained in
    kept = {'dataset_meta': meta['dataset_meta']} if 'dataset_meta' in meta else {}
    write_checkpoint(out / 'grouped.pth', done.model.state_dict(), kept)
    write_json(out / 'plan.json', done.plan.to_dict())
    with whole_file(out / 'config.py') as path:
        path.write_text(done.config.pretty_text)


if __name__ == '__main__':
    sys.exit(main())
