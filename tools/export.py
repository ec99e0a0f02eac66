"""Write a detector as an ONNX file in which grouped work is really gone, and check it."""

import argparse
import shutil
import sys
from pathlib import Path

import mmcv
import torch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mmdet_groupconv.benchmark import describe
from mmdet_groupconv.checkpoints import check_writable, load_weights, whole_file, write_json
from mmdet_groupconv.compiler.freezing import freeze_gates
from mmdet_groupconv.engine.calibration import calibration_batches, calibration_pixels
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import build_model, load_config
from mmdet_groupconv.engine.optional import load_deploy
from mmdet_groupconv.engine.options import (
    add_config_options,
    add_freeze_options,
    add_shape_option,
    check_freeze,
    check_shape,
)

_OURS = "Written beside the file by mmdet_groupconv's tools/export.py"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_options(parser)
    parser.add_argument('checkpoint', help='weights of this detector')
    parser.add_argument('--out', required=True, help='ONNX file to write')
    parser.add_argument(
        '--part',
        choices=('backbone', 'neck', 'head', 'detector'),
        default='detector',
        help='all of it, from pixels to boxes, or from normalised images to maps; of a two-stage '
        'detector, "head" ends with the RPN',
    )
    add_shape_option(parser, 'size of image to make it fast for; the file takes any')
    parser.add_argument(
        '--image',
        help='to check the file on; if not given, training images for int8 and for detectors in '
        'bf16, else noise',
    )
    parser.add_argument(
        '--runtime',
        choices=('onnxruntime', 'openvino'),
        default='onnxruntime',
        help='to make it fast for',
    )
    parser.add_argument(
        '--precision',
        choices=('fp32', 'bf16', 'int8'),
        default='fp32',
        help='to make it fast for; int8 is calibrated on training images (--calibrate)',
    )
    parser.add_argument('--threads', type=int, default=1, help='to make it fast for')
    then = 'tools/test.py --freeze tells what that changes'
    add_freeze_options(parser, then, ', and so many images for int8')
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Raise ValueError for what would else fail after minutes of work."""
    check_writable(args.out, args.checkpoint)
    if Path(args.out).suffix == '.json':
        raise ValueError(f'--out {args.out}: that name is for what is found about the file')
    beside = Path(args.out).with_name('detect.py')
    if args.part == 'detector' and beside.exists() and _OURS not in beside.read_text():
        raise ValueError(f'{beside} is another file, expected a folder without one for --out')
    if args.threads < 1:
        raise ValueError(f'--threads {args.threads}, expected 1 or more')
    check_shape(args)
    check_freeze(args)


def load_model(cfg: Config, checkpoint: str) -> nn.Module:
    """The config's detector with the checkpoint's weights."""
    model = build_model(cfg)
    load_weights(model, checkpoint)
    return model.eval()


def read_image(path: str) -> Tensor:
    """``[1, 3, H, W]``, uint8, RGB. Raises ValueError for what is no image."""
    pixels = mmcv.imread(path)
    if pixels is None:
        raise ValueError(f'--image {path} is no image')
    return torch.from_numpy(mmcv.bgr2rgb(pixels).transpose(2, 0, 1).copy())[None]


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        check(args)
        deploy, cfg = load_deploy(), load_config(args)
        runtime = deploy.Runtime(args.runtime, args.precision, args.threads)
        runtime.check()
        model = load_model(cfg, args.checkpoint)
        image = None if args.image is None else read_image(args.image)
        if args.freeze is not None:
            freeze_gates(model, calibration_batches(cfg, args.calibrate), args.freeze)
        about = dict(
            config=args.config,
            checkpoint=args.checkpoint,
            runtime=args.runtime,
            precision=args.precision,
            **deploy.metadata(cfg, args.part),
        )
        images = [] if image is None else [image]
        if args.precision == 'int8':
            images = calibration_pixels(cfg, args.calibrate)
        elif args.precision == 'bf16' and args.part == 'detector' and image is None:
            images = calibration_pixels(cfg, deploy.COMPARED)
        report = deploy.export_onnx(
            model,
            args.out,
            tuple(args.shape),
            runtime,
            part=args.part,
            image=images[0] if image is None and images else image,
            about=about,
            images=images,
        )
        if args.part == 'detector':
            with whole_file(Path(args.out).with_name('detect.py')) as temporary:
                shutil.copyfile(deploy.DETECT, temporary)
        figures = report.figures(args.out, args.part, args.shape, runtime)
        figures.update(config=args.config, checkpoint=args.checkpoint)
        figures.update(machine=describe(torch.device('cpu')))
        write_json(Path(args.out).with_suffix('.json'), figures)
    height, width = args.shape
    table = Table('output', 'shape', title=f'{args.out}: {height}x{width}', title_justify='left')
    for name, size in report.outputs.items():
        table.add_row(name, 'x'.join(map(str, size)))
    console = Console()
    console.print(table)
    if report.quantised is None:
        console.print(f'largest difference from PyTorch {report.difference:.1e}, relative')
    else:
        names = ', '.join(report.quantised.stay_float) or 'none'
        console.print(f'predictions change by {report.quantised.change:.1e} of their variance')
        console.print(f'layers that stay float because they cost accuracy: {names}')
    if not runtime.is_native:
        console.print(f'this CPU has no {args.precision}: the file runs, but not faster')
    where = f'in {args.runtime}, {args.precision}'
    console.print(f'an image takes {1000 * report.seconds:.0f} ms {where}', end='')
    if report.ungrouped is None:
        console.print(' (gates come with the image, one image at a time; see also --freeze)')
    else:
        console.print(f', with dense convolutions {1000 * report.ungrouped:.0f} ms')
    if args.part == 'detector' and getattr(model, 'with_mask', False):
        console.print('it gives boxes alone: masks are not in the file')
    if args.part == 'detector':  # in one line, to be copied
        print(f'python {Path(args.out).with_name("detect.py")} {args.out} IMAGES --out FOUND')
    return 0


if __name__ == '__main__':
    sys.exit(main())
