"""Detect objects in an image, a folder of images or a video: pictures and a COCO file."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import mmcv
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmdet_groupconv.checkpoints import write_json
from mmdet_groupconv.compiler import compact
from mmdet_groupconv.engine.errors import user_errors
from mmdet_groupconv.engine.launch import load_config
from mmdet_groupconv.engine.options import add_config_options
from mmdet_groupconv.inference.inferencer import CheckedInferencer
from mmdet_groupconv.inference.predictions import CocoPredictions, paint, predict
from mmdet_groupconv.inference.sources import ImageFiles, VideoFrames, open_source


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='image, folder of images or video')
    add_config_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help='folder for pictures and predictions.json')
    parser.add_argument('--compact', action='store_true', help='do only the gated work')
    parser.add_argument(
        '--precision', choices=('fp32', 'bf16'), default='fp32', help='of --compact'
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='leave out boxes below this score'
    )
    parser.add_argument('--device', help='such as cpu or cuda:0; by default what is there')
    return parser.parse_args(argv)


@contextmanager
def painter(source: ImageFiles | VideoFrames, out: Path) -> Iterator[Callable]:
    """What writes a painted image: to a file of its name, or to the video's next frame."""
    if isinstance(source, ImageFiles):
        yield lambda name, image: mmcv.imwrite(image, str(out / 'pictures' / name))
        return
    with tempfile.TemporaryDirectory(dir=out) as folder:  # OpenCV goes by the suffix
        file = Path(folder) / f'{source.path.stem}.mp4'
        codec = cv2.VideoWriter_fourcc(*'mp4v')
        video = cv2.VideoWriter(str(file), codec, source.fps, source.size)
        try:
            yield lambda name, image: video.write(image)
        finally:
            video.release()
        file.replace(out / file.name)


def prepare(args: argparse.Namespace) -> tuple[ImageFiles | VideoFrames, CheckedInferencer]:
    if not 0 <= args.score_thr <= 1:
        raise ValueError(f'--score-thr {args.score_thr}: expected a score from 0 to 1')
    if args.precision != 'fp32' and not args.compact:
        raise ValueError(f'--precision {args.precision}, expected --compact with it')
    source = open_source(args.source)
    cfg = load_config(args)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    inferencer = CheckedInferencer(cfg, args.checkpoint, args.device, show_progress=False)
    if args.compact:
        inferencer.model = compact(inferencer.model, precision=args.precision)
    return source, inferencer


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        source, inferencer = prepare(args)
    out, skipped = Path(args.out), []
    predictions = CocoPredictions(inferencer.model.dataset_meta['classes'])
    with painter(source, out) as write:
        for name, image in track(source, 'detecting', total=len(source)):
            if image is None:
                skipped.append(name)
                continue
            sample = predict(inferencer, image, args.score_thr)
            predictions.add(name, image.shape, sample)
            write(name, paint(inferencer, image, sample))
    write_json(out / 'predictions.json', predictions.to_dict())
    print_counts(predictions.counts(), f'{len(source) - len(skipped)} images, {out}')
    for name in skipped:
        print(f'error: {name} can not be read as an image, it was left out', file=sys.stderr)
    return 1 if skipped else 0


def print_counts(counts: dict[str, int], title: str) -> None:
    table = Table('class', 'boxes', title=title)
    for name, count in counts.items():
        table.add_row(name, str(count))
    Console().print(table)


if __name__ == '__main__':
    sys.exit(main())
