"""Count the MACs of a config's detector, layer by layer and by part, against the dense one."""

import argparse
import sys

from mmdet_groupconv.analysis import count_macs, count_macs_of_images, print_macs
from mmdet_groupconv.analysis.targets import targets_of
from mmdet_groupconv.checkpoints import check_writable, load_weights, write_json
from mmdet_groupconv.classification import ImageClassifier
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import build_model, load_config
from mmdet_groupconv.engine.options import add_config_options


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('--shape', type=int, nargs=2, default=(800, 1333), metavar=('H', 'W'))
    parser.add_argument('--checkpoint', help='trained weights')
    parser.add_argument(
        '--images', help='folder of images whose gates and sizes are used; else all gates are open'
    )
    parser.add_argument(
        '--classes',
        type=int,
        help='count the backbone with a classifier of so many classes instead, as the papers do',
    )
    parser.add_argument('--out', help='also write the report to this JSON file')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    with user_errors():
        args = parse_args(argv)
        if args.out:
            check_writable(args.out, args.config)
        if min(args.shape) < 32 or (args.classes is not None and args.classes < 2):
            raise ValueError('--shape is 32 or more each, --classes 2 or more')
        cfg = load_config(args)
        model = build_model(cfg)
        if args.checkpoint:
            load_weights(model, args.checkpoint)
        if args.images:
            report, title = count_macs_of_images(model, cfg, args.images), f'images {args.images}'
        else:
            network = ImageClassifier(model.backbone, args.classes) if args.classes else model
            report = count_macs(network, tuple(args.shape))
            title = f'{args.shape[0]}x{args.shape[1]}, gates open'
    print_macs(report, f'{args.config}: {title}', targets_of(cfg) if args.images else None)
    if args.out:
        with user_errors():
            write_json(args.out, report.to_dict())
    return 0


if __name__ == '__main__':
    sys.exit(main())
