"""See what was grouped: which channels are read where, on which images, and what it costs."""

import argparse
import copy
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmdet_groupconv.analysis.gates import GateRecorder, LayerGates
from mmdet_groupconv.analysis.pictures import save
from mmdet_groupconv.analysis.recording import record
from mmdet_groupconv.checkpoints import load_weights, write_json
from mmdet_groupconv.datasets.images import image_batches, image_paths, spread, spread_loader
from mmdet_groupconv.engine.data_inputs import check_data
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import build_model, load_config
from mmdet_groupconv.engine.options import add_config_options


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('checkpoint', nargs='?', help='trained weights; else they are random')
    parser.add_argument('--out', required=True, help='folder for the pictures and groups.json')
    parser.add_argument('--images', help="folder of images; else the config's for validation")
    parser.add_argument('--number', type=int, default=64, help='of images, spread over all of them')
    parser.add_argument('--format', choices=('png', 'svg', 'pdf'), default='png')
    return parser.parse_intermixed_args(argv)  # the checkpoint may come after options


def check_arguments(args: argparse.Namespace) -> None:
    if args.number < 1:
        raise ValueError(f'--number {args.number}: expected 1 or more')
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f'--out {out} is a file, expected a folder')
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    if not os.access(existing, os.W_OK):
        raise ValueError(f'--out {out}: folder {existing} is not writable')


def batches_of(cfg: Config, args: argparse.Namespace) -> tuple[Iterable[dict], int]:
    """Batches of one image each, and how many."""
    loader = copy.deepcopy(cfg.val_dataloader)
    if args.images:
        paths = spread(image_paths(args.images), args.number)
        if loader.dataset.type != 'ImageFolder':
            return image_batches(cfg, paths), len(paths)
        loader.dataset.data_root = args.images
    else:
        check_data(cfg, ('val',))
    batches = spread_loader(loader, args.number)
    return batches, len(batches)


def print_layers(layers: list[LayerGates], title: str) -> None:
    """A row a layer: how much of it is read, on all, some and no images."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table('layer', 'method', title=title, title_justify='left')
    for column in ('groups', 'channels', 'filters', 'read', 'always', 'sometimes', 'never'):
        table.add_column(column, justify='right')
    for layer in layers:
        _, groups, channels = layer.read.shape
        shares = layer.amount().mean(), *layer.variation()
        sizes = (str(size) for size in (groups, channels, len(layer.assign)))
        table.add_row(layer.name, layer.method, *sizes, *(f'{share:.3f}' for share in shares))
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        check_arguments(args)
        cfg = load_config(args)
        model = build_model(cfg)
        GateRecorder(model)  # refuses a model without grouped layers
        if args.checkpoint:
            load_weights(model, args.checkpoint)
        batches, number = batches_of(cfg, args)
        recording = record(model, track(batches, 'recording', total=number))
    weights = args.checkpoint or 'random weights'
    print_layers(recording.layers, f'{weights}, {len(recording.images)} images')
    out = Path(args.out)
    with user_errors():
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in recording.figures().items():
            save(figure, out / f'{name}.{args.format}')
            print(out / f'{name}.{args.format}')
        write_json(out / 'groups.json', recording.to_dict())
    return 0


if __name__ == '__main__':
    sys.exit(main())
