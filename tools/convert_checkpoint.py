"""Convert a published classifier's weights for our backbones, or ours back to the published form.

Reads the weights of MSGC, DGC and SG-CNN, of torchvision and of MMPretrain, and tells by keys and
shapes which network they are for.
"""

import argparse
import sys

from mmdet_groupconv.checkpoints import (
    NETWORKS,
    Classifier,
    MisfitError,
    check_writable,
    read_classifier,
    write_classifier,
    write_published,
)
from mmdet_groupconv.engine.errors import user_errors


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', metavar='SRC', help='checkpoint file to read')
    parser.add_argument('output', metavar='DST', help='checkpoint file to write')
    parser.add_argument(
        '--to',
        choices=NETWORKS,
        metavar='NETWORK',
        help='what it has to be, METHOD-HOST such as msgc-resnet18 or dense-mobilenetv2; default: '
        'whatever keys and shapes say',
    )
    parser.add_argument(
        '--export',
        action='store_true',
        help='write what the authors of the method (of a dense network, torchvision) would load',
    )
    return parser.parse_args(argv)


def read(args: argparse.Namespace) -> Classifier:
    """The source, whose keys are listed on stderr where they are not the network's."""
    try:
        return read_classifier(args.source, args.to)
    except MisfitError as error:
        print('\n'.join(error.lines), file=sys.stderr)
        raise


def report(classifier: Classifier, args: argparse.Namespace) -> None:
    """What was found, what was written and how it is used."""
    network, state = classifier.network, classifier.state
    found = [network.name, f'{network.num_classes} classes']
    if network.heads:
        found.append(f'{network.heads} heads')
    if network.attention is not None:
        found.append('attention' if network.attention else 'no attention')
    if network.groups:
        found.append(f'{network.groups} groups')
    print(f'{args.source}: {", ".join(found)}')
    print(f'{args.output}: {len(state)} tensors, {classifier.parameters:,} parameters')
    if not args.export:
        weights = dict(type='Pretrained', checkpoint=args.output, prefix='backbone.')
        print(f'backbone={_call(network.config())}\ninit_cfg={_call(weights)}')
    if network.masked_fc:
        print("the classifier has a mask, too: linear_cfg=dict(type='SGCLinear')")
    if network.method == 'msgc' and classifier.published:
        print("MSGC's released weights are for research only: see the LICENSE of hellozhuo/msgc")


def _call(config: dict) -> str:
    return f'dict({", ".join(f"{key}={value!r}" for key, value in config.items())})'


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        classifier = read(args)
        check_writable(args.output, args.source)
        if args.export:
            write_published(args.output, classifier)
        else:
            write_classifier(args.output, classifier, args.source)
    report(classifier, args)
    return 0


if __name__ == '__main__':
    sys.exit(main())
