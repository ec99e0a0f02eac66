"""Unpack CIFAR-10 as folders of images: train/<class>/* and val/<class>/*."""

import argparse
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from rich.progress import track

from mmdet_groupconv.classification import check_image_folder
from mmdet_groupconv.engine.errors import user_errors

DEFAULT = Path(os.environ.get('MMDET_GROUPCONV_SHARED', '../shared'))
SPLITS = 'train', 'val'


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'archive',
        nargs='?',
        default=str(DEFAULT / 'data/cifar10/cifar10_imagefolder.zip'),
        help='zip file with train/<class>/ and val/<class>/ (default: %(default)s)',
    )
    parser.add_argument('--out', default='data/cifar10', help='folder to make (%(default)s)')
    return parser.parse_args(argv)


def unpack(archive: str, out: str) -> None:
    """Unpack whole or not at all; a folder that is there already is left alone.

    Raises FileNotFoundError, FileExistsError, and ValueError for a file that is no such archive.
    """
    if not os.path.isfile(archive):
        raise FileNotFoundError(f'archive {archive} not found')
    if os.path.exists(out):
        raise FileExistsError(f'--out {out} exists already, expected a new folder')
    parent = Path(out).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix='.unpacking-', dir=parent)
    try:
        with zipfile.ZipFile(archive) as file:
            for name in track(file.namelist(), 'unpacking'):
                file.extract(name, temporary)  # keeps to the folder, whatever the name
        train, val = (classes_of(temporary, split, archive) for split in SPLITS)
        if train != val:
            raise ValueError(f'archive {archive}: train and val have other classes')
        os.chmod(temporary, 0o755)
        os.rename(temporary, out)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # or encrypted
        raise ValueError(f'archive {archive} can not be read: {error}') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def classes_of(folder: str, split: str, archive: str) -> list[str]:
    """Raises ValueError where the archive had none."""
    try:
        return check_image_folder(os.path.join(folder, split))
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f'archive {archive} has no {split}/<class>/ folders') from error


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    with user_errors():
        unpack(args.archive, args.out)
    for split in SPLITS:
        images = sum(len(files) for _, _, files in os.walk(os.path.join(args.out, split)))
        print(f'{args.out}/{split}: {images} images')
    return 0


if __name__ == '__main__':
    sys.exit(main())
