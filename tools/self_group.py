"""Group and prune a trained detector's SGC layers, for fine-tuning (SG-CNN, global scheme)."""

import argparse
import sys

from mmengine.runner import load_state_dict

from mmdet_groupconv.analysis import count_macs, print_macs
from mmdet_groupconv.checkpoints import (
    check_fit,
    check_writable,
    grouping_keys,
    read_checkpoint,
    write_checkpoint,
)
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import build_model, load_config
from mmdet_groupconv.engine.options import add_config_options
from mmdet_groupconv.engine.self_grouping import self_group_model, sgc_layers


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('checkpoint', help='weights of this detector, or of its dense form')
    parser.add_argument(
        '--percentage', type=float, required=True, help='of the connections to be pruned'
    )
    parser.add_argument('--groups', type=int, help='clusters of filters; default: as configured')
    parser.add_argument('--step', type=float, default=10, help='prune in steps of so many percent')
    parser.add_argument('--seed', type=int, default=0, help="of k-means's starts")
    parser.add_argument('--shape', type=int, nargs=2, default=(800, 1333), metavar=('H', 'W'))
    parser.add_argument('--out', required=True, help='checkpoint file to write')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        cfg = load_config(args)
        state, meta = read_checkpoint(args.checkpoint)
        check_writable(args.out, args.checkpoint)
        if min(args.shape) < 32:
            raise ValueError(f'--shape {args.shape[0]} {args.shape[1]}, expected 32 or more each')
        if args.groups is not None and args.groups < 1:
            raise ValueError(f'--groups {args.groups}, expected 1 or more')
        model = build_model(cfg)
        check_fit(model, state, args.checkpoint, may_lack=grouping_keys(model))
        load_state_dict(model, state)
        for layer in sgc_layers(model).values():
            layer.clusters = args.groups or layer.clusters
        self_group_model(model, args.percentage, args.step, args.seed)
    done = dict(percentage=args.percentage, step=args.step, groups=args.groups, seed=args.seed)
    kept = {'dataset_meta': meta['dataset_meta']} if 'dataset_meta' in meta else {}
    write_checkpoint(args.out, model.state_dict(), dict(kept, self_grouping=done))
    height, width = args.shape
    print_macs(count_macs(model, (height, width)), f'{args.out}: {height}x{width}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
