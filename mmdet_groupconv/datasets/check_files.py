"""Whether the images of a data set are there, and with ``--full`` whether they can be read."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import mmcv
from rich.console import Console
from rich.progress import track

from .report import DataReport


def check_files(folder: str, names: Sequence[str], report: DataReport) -> None:
    """Note which files are missing, by one look into each folder."""
    by_folder = defaultdict(list)
    for name in names:
        below, base = os.path.split(name)
        by_folder[below].append(base)
    lost = []
    for below, bases in by_folder.items():
        path = os.path.join(folder, below)
        if os.path.isdir(path):
            present = {entry.name for entry in os.scandir(path)}
            lost += [os.path.join(path, base) for base in bases if base not in present]
        else:
            report.add('image folder not found', [f'{path} ({len(bases)} images)'])
    report.add('image file not found', lost)


def check_images(
    paths: Iterable[str], sizes: Iterable[tuple[int, int] | None], loader: dict, report: DataReport
) -> None:
    """Note which images can't be decoded, or have another size (width, height) than expected.

    loader: ``color_type`` and ``imdecode_backend`` of the pipeline's ``LoadImageFromFile``.
    """
    work = [(path, size) for path, size in zip(paths, sizes, strict=True) if os.path.isfile(path)]
    unread, other = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders let other threads run
        found = pool.map(lambda item: read_size(item[0], loader), work)
        progress = track(
            zip(work, found, strict=True), 'opening images', len(work), console=Console(stderr=True)
        )
        for (path, expected), size in progress:
            if isinstance(size, str):
                unread.append(f'{path}: {size}')
            elif expected is not None and size != tuple(map(int, expected)):
                text = 'x'.join(map(str, size))
                other.append(f'{path}: {text}, annotated as {"x".join(map(str, expected))}')
    report.add('image that can not be read', unread)
    report.add('image of another size than annotated', other)


def read_size(path: str, loader: dict) -> tuple[int, int] | str:
    """Width and height of an image as MMDetection's loader gets it, or why it gets none."""
    try:
        with open(path, 'rb') as file:
            content = file.read()
        if not content:
            return 'empty file'
        pixels = mmcv.imfrombytes(
            content,
            flag=loader.get('color_type', 'color'),
            backend=loader.get('imdecode_backend') or 'cv2',
        )
    except (OSError, ValueError, cv2.error) as error:
        return ' '.join(str(error).split())
    if pixels is None:
        return 'not an image, or cut short'
    return pixels.shape[1], pixels.shape[0]
