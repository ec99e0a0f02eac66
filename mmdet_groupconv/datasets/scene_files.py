"""The files of a synthetic detection set: images and COCO annotations, made once."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from .render import CLASSES, render_scene

GENERATOR_VERSION = 1
"""Raise it with every change to the pictures, so that sets made before are made anew."""

SPLITS = ('train', 'val')
ANN_FILE = 'annotations/{split}.json'
MIN_IMAGE_SIZE = 64
JPEG_QUALITY = 95
ABANDONED_SECONDS = 3600
PARTIAL_PREFIX = '.partial-'
SET_ANNOTATIONS = 'annotations.json'


def prepare_scenes(
    data_root: str | os.PathLike[str],
    split: str,
    num_images: int,
    image_size: int | Sequence[int],
    seed: int,
) -> Path:
    """Make the files of one split unless they are there; see :class:`ScenesDataset`.

    Any number of processes may call this at once. A set is made in a folder with a temporary
    name and appears by one rename, so a set that can be seen is complete.

    Returns:
        The split's COCO annotation file. Its ``file_name`` entries are relative to
        ``{data_root}/{split}``.

    Raises:
        ValueError: an argument is out of its range, or the annotation file in ``data_root`` was
            made by something else and so must not be replaced.
        OSError: ``data_root`` cannot be written.
    """
    spec = _SetSpec.checked(split, num_images, image_size, seed)
    split_dir = Path(data_root) / split
    ann_file = Path(data_root) / ANN_FILE.format(split=split)
    set_dir = split_dir / spec.folder
    try:
        if _made_from(ann_file) == asdict(spec) and set_dir.is_dir():
            return ann_file
        split_dir.mkdir(parents=True, exist_ok=True)
        ann_file.parent.mkdir(exist_ok=True)
        _remove_abandoned(split_dir)
        if not set_dir.is_dir():
            _make_set(spec, set_dir)
        _copy_atomically(set_dir / SET_ANNOTATIONS, ann_file)
    except OSError as error:
        raise OSError(
            error.errno, f'data_root: expected a folder to write to, found {data_root} ({error})'
        ) from error
    return ann_file


@dataclass(frozen=True)
class _SetSpec:
    """Everything the files of a split depend on."""

    split: str
    num_images: int
    width: int
    height: int
    seed: int
    generator_version: int

    @classmethod
    def checked(
        cls, split: str, num_images: int, image_size: int | Sequence[int], seed: int
    ) -> _SetSpec:
        if split not in SPLITS:
            raise ValueError(f'split: expected one of {SPLITS}, found {split!r}')
        for name, value, least in (('num_images', num_images, 1), ('seed', seed, 0)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f'{name}: expected an integer >= {least}, found {value!r}')
        is_pair = isinstance(image_size, Sequence)
        size = tuple(image_size) if is_pair else (image_size, image_size)
        if len(size) != 2 or any(not isinstance(s, int) or s < MIN_IMAGE_SIZE for s in size):
            raise ValueError(
                f'image_size: expected an integer >= {MIN_IMAGE_SIZE} or (width, height) of such, '
                f'found {image_size!r}'
            )
        return cls(split, num_images, *size, seed, GENERATOR_VERSION)

    @property
    def folder(self) -> str:
        return (
            f'v{self.generator_version}-seed{self.seed}'
            f'-{self.width}x{self.height}-n{self.num_images}'
        )

    def rng(self, index: int) -> np.random.Generator:
        key = (SPLITS.index(self.split), index)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


def _made_from(ann_file: Path) -> dict[str, Any] | None:
    """Parameters an annotation file was made with, None without a file.

    Raises:
        ValueError: the file was not made here, so it must not be replaced.
    """
    if not ann_file.is_file():
        return None
    try:
        return json.loads(ann_file.read_text())['info']['scenes']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'data_root: expected an annotation file made by ScenesDataset or none, found '
            f'{ann_file}, which has no info.scenes; name another folder'
        ) from error


def _make_set(spec: _SetSpec, set_dir: Path) -> None:
    """Render a set beside ``set_dir`` and rename it there, unless another process was first."""
    partial = set_dir.parent / f'{PARTIAL_PREFIX}{uuid.uuid4().hex}'
    try:
        partial.mkdir()
        scenes = []
        for index in track(
            range(spec.num_images),
            description=f'making {spec.split} scenes',
            console=Console(stderr=True),
        ):
            scene = render_scene(spec.rng(index), spec.width, spec.height)
            _write_image(partial / _image_name(index), scene.image)
            scenes.append((scene.boxes, scene.labels, scene.areas))
        (partial / SET_ANNOTATIONS).write_text(json.dumps(_coco_dict(spec, scenes)))
        partial.rename(set_dir)
    except OSError:
        if not set_dir.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _image_name(index: int) -> str:
    return f'{index:06d}.jpg'


def _write_image(path: Path, image: np.ndarray) -> None:
    # cv2.imwrite reports a full disk or a missing folder only by its return value.
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    path.write_bytes(data.tobytes())


def _coco_dict(
    spec: _SetSpec, scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    """COCO ground truth of (boxes xyxy, labels, areas) per image; all ids start at 1."""
    images, annotations = [], []
    for index, (boxes, labels, areas) in enumerate(scenes):
        images.append(
            {
                'id': index + 1,
                'file_name': f'{spec.folder}/{_image_name(index)}',
                'width': spec.width,
                'height': spec.height,
            }
        )
        for (x1, y1, x2, y2), label, area in zip(
            boxes.tolist(), labels.tolist(), areas.tolist(), strict=True
        ):
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': index + 1,
                    'category_id': label + 1,
                    'bbox': [x1, y1, x2 - x1, y2 - y1],
                    'area': float(area),
                    'iscrowd': 0,
                }
            )
    return {
        'info': {'description': 'synthetic scenes of shapes', 'scenes': asdict(spec)},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': label + 1, 'name': name, 'supercategory': 'shape'}
            for label, name in enumerate(CLASSES)
        ],
    }


def _copy_atomically(source: Path, target: Path) -> None:
    partial = target.parent / f'{PARTIAL_PREFIX}{uuid.uuid4().hex}'
    try:
        shutil.copyfile(source, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _remove_abandoned(split_dir: Path) -> None:
    """Remove what killed processes left; a folder at work gets a new file all the time."""
    oldest = time.time() - ABANDONED_SECONDS
    for partial in split_dir.glob(f'{PARTIAL_PREFIX}*'):
        with suppress(FileNotFoundError):  # its process may rename or remove it right now
            if partial.stat().st_mtime < oldest:
                shutil.rmtree(partial, ignore_errors=True)
