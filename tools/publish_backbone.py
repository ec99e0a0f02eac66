"""Take the backbone out of a classifier's checkpoint, for detectors to begin with."""

import argparse
import sys

from mmdet_groupconv.checkpoints import check_writable, publish_backbone
from mmdet_groupconv.engine.errors import user_errors


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='of a run of configs/imagenet or configs/cifar10')
    parser.add_argument('out', help='file to write; eight digits of its SHA-256 go into its name')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        check_writable(args.out, args.checkpoint)
        path, tensors = publish_backbone(args.checkpoint, args.out)
    print(f'{path}: {tensors} tensors')
    print(
        f"backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='{path}', prefix='backbone.'))"
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
