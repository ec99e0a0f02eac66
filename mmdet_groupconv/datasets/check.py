"""A data set's config, checked without building it."""

import os
import os.path as osp

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import ConfigDict
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..classification import check_image_folder
from .check_coco import CocoUse, check_coco
from .check_files import check_files, check_images
from .report import DataReport
from .scenes import ScenesDataset


def check_dataset(
    dataset: ConfigDict, source: str, full: bool = False, truth: str | None = None
) -> DataReport | None:
    """What is wrong with the data of a config; None for types whose files are not known here.

    Looked at are types that read files as ``CocoDataset`` does, and ``ImageFolder``, on local
    disks. source: where it is configured. full: decode every image, too. truth: the annotation
    file that ``CocoMetric`` reads.

    Raises FileNotFoundError and ValueError where there is nothing to look at.
    """
    if dataset.get('type') == 'ImageFolder':
        return _check_image_folder(dataset, source, full)
    if reads_coco(dataset):
        return _check_coco_dataset(dataset, source, full, truth)
    return None


def reads_coco(dataset: ConfigDict) -> bool:
    """Whether files on local disks are read as ``CocoDataset`` does, and are made beforehand."""
    kind = dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    remote = '://' in f'{dataset.get("data_root")}{dataset.get("ann_file")}'
    return (
        isinstance(kind, type)
        and issubclass(kind, CocoDataset)
        and not issubclass(kind, ScenesDataset)
        and not remote
        and not dataset.get('backend_args')
        and all(
            getattr(kind, name) is getattr(CocoDataset, name)
            for name in ('load_data_list', 'parse_data_info', 'filter_data', 'COCOAPI')
        )
    )


def annotation_file(dataset: ConfigDict) -> str:
    """The path of the annotation file."""
    return osp.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')


def _check_coco_dataset(
    dataset: ConfigDict, source: str, full: bool, truth: str | None
) -> DataReport:
    if not dataset.get('ann_file'):
        raise ValueError(f'{source}: no ann_file, expected the name of an annotation file')
    path = annotation_file(dataset)
    report = DataReport(f'{source}: {path}')
    prefix = (dataset.get('data_prefix') or {}).get('img')
    if not isinstance(prefix, str):
        raise ValueError(
            f'{report.source}: data_prefix={dataset.get("data_prefix")}, expected dict(img=FOLDER)'
        )
    filters = {} if dataset.get('test_mode') else dataset.get('filter_cfg') or {}
    use = CocoUse(
        _classes(dataset, report.source),
        not dataset.get('test_mode'),
        filters.get('filter_empty_gt', False),
        filters.get('min_size', 0),
        truth is not None and osp.realpath(truth) == osp.realpath(path),
    )
    images = check_coco(path, use, report)
    folder = osp.join(dataset.get('data_root') or '', prefix)
    names = [image['file_name'] for image in images]
    if '://' not in folder:
        check_files(folder, names, report)
        if full:
            sizes = [(image['width'], image['height']) for image in images]
            paths = [osp.join(folder, name) for name in names]
            check_images(paths, sizes, _loader(dataset), report)
    return report


def _classes(dataset: ConfigDict, source: str) -> tuple[str, ...]:
    kind = dataset['type']
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    classes = kind._load_metainfo(dataset.get('metainfo')).get('classes')
    if isinstance(classes, str):
        raise ValueError(
            f'{source}: metainfo.classes is the string {classes!r}, expected a tuple of names: '
            f'({classes!r},)'
        )
    if not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError(f'{source}: metainfo.classes={classes!r}, expected a tuple of names')
    twice = [name for name in classes if list(classes).count(name) > 1]
    if twice:
        raise ValueError(f'{source}: metainfo.classes has {twice[0]!r} twice, expected it once')
    return tuple(classes)


def _loader(dataset: ConfigDict) -> dict:
    steps = dataset.get('pipeline') or []
    return next((s for s in steps if str(s.get('type')).endswith('LoadImageFromFile')), {})


def _check_image_folder(dataset: ConfigDict, source: str, full: bool) -> DataReport:
    root = dataset.get('data_root')
    check_image_folder(root)
    report = DataReport(f'{source}: {root}')
    paths, empty = [], []
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.is_dir():
            found = _images_below(entry.path)
            first = next(found, None)
            if first is None:
                empty.append(f'{entry.path}, expected files in {", ".join(IMG_EXTENSIONS)}')
            elif full:
                paths += [first, *found]
                report.boxes[entry.name] = len(paths) - report.boxes.total()
    report.add('class folder without images', empty)
    if full:
        report.counts = dict(images=len(paths), categories=len(report.boxes))
        check_images(paths, [None] * len(paths), dict(imdecode_backend='pillow'), report)
    return report


def _images_below(folder: str):
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in sorted(names):
            if name.lower().endswith(IMG_EXTENSIONS):
                yield osp.join(parent, name)
