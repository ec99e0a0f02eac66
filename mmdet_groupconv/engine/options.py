"""Command-line options as MMDetection's tools have them."""

from argparse import ArgumentError, ArgumentParser, Namespace

from mmengine.config import DictAction


class _Settings(DictAction):
    """MMEngine's, which ends in a traceback where there is no ``=``."""

    def __call__(self, parser: ArgumentParser, namespace, values: list[str], option=None) -> None:
        for value in values:
            if '=' not in value:
                raise ArgumentError(self, f'found {value!r}, expected KEY=VALUE')
        super().__call__(parser, namespace, values, option)


def add_config_options(parser: ArgumentParser) -> None:
    """The config and its overrides, as MMDetection's tools take them."""
    parser.add_argument('config', help='config file path')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Settings,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. model.backbone.heads=8 key="[a,b]"',
    )


def add_run_options(parser: ArgumentParser) -> None:
    """How a run is placed: where it writes and how its processes are started."""
    parser.add_argument('--work-dir', help='where logs, checkpoints and metrics are written')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_shape_option(
    parser: ArgumentParser, help: str | None = None, default: tuple[int, int] | None = (800, 1344)
) -> None:
    """Height and width of an image that costs are counted or timed for."""
    parser.add_argument(
        '--shape', type=int, nargs=2, default=default, metavar=('H', 'W'), help=help
    )


def check_shape(args: Namespace) -> None:
    """Raise ValueError for an image too small for a detector's strides."""
    if args.shape is not None and min(args.shape) < 64:
        raise ValueError(f'--shape {args.shape[0]} {args.shape[1]}, expected 64 or more each')


def add_freeze_options(parser: ArgumentParser, then: str, also: str = '') -> None:
    """Freezing gates by image, for ``calibration_batches``.

    then: what help says of it. also: what else is calibrated.
    """
    parser.add_argument(
        '--freeze',
        type=float,
        metavar='KEEP',
        help='fix gates by image: a head reads what it read on more than this share (0 to 1) of '
        f'the calibration images; {then}',
    )
    parser.add_argument(
        '--calibrate',
        type=int,
        default=64,
        metavar='BATCHES',
        help=f'of training images, at most, for --freeze{also}',
    )


def check_freeze(args: Namespace) -> None:
    """Raise ValueError for a share or a number that is none, before the work for it."""
    if args.calibrate < 1:
        raise ValueError(f'--calibrate {args.calibrate}, expected 1 or more')
    if args.freeze is not None and not 0 <= args.freeze <= 1:
        raise ValueError(f'--freeze {args.freeze}: expected a share from 0 to 1')
