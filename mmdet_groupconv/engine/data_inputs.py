"""The data that a run reads, checked before anything is written."""

import os.path as osp
from collections.abc import Callable, Iterator
from itertools import zip_longest

from mmengine.config import Config, ConfigDict

from ..classification import check_image_folder
from ..datasets.check import annotation_file, check_dataset, reads_coco
from ..datasets.coco_file import read_coco
from ..datasets.report import DataReport, Problem


def check_data(cfg: Config, modes: tuple[str, ...]) -> None:
    """Raise FileNotFoundError or ValueError where the data of `modes` can't be trained on."""
    for report in data_reports(cfg, modes):
        if report.failure:
            raise report.failure
        if report.errors:
            raise ValueError(report.error_line)


def data_reports(cfg: Config, modes: tuple[str, ...], full: bool = False) -> Iterator[DataReport]:
    """What is wrong with the data sets that `modes` read, one after another.

    full: open every image, too. Equal data sets of several modes are looked at once.
    """
    labels = {}
    for dataset, users in _data_sets(cfg, modes):
        source = ', '.join(f'{mode}_dataloader' for mode in users)
        truth = next((path for mode in users for path in _truths(cfg, mode)), None)
        report = _report(source, lambda d=dataset, s=source, t=truth: _look(d, s, full, t))
        if report.labels:
            _check_labels(cfg, report, labels)
            labels.setdefault(report.labels, report.source)
        yield report
    yield _report('', lambda: _check_image_folders(cfg, modes))
    yield _report('', lambda: _check_truths(cfg, modes))


def _report(source: str, look: Callable[[], DataReport | None]) -> DataReport:
    try:
        return look() or DataReport(source)
    except (OSError, ValueError, TypeError) as error:
        return DataReport(source, [Problem(str(error), 1, [])], failure=error)


def _look(dataset: ConfigDict, source: str, full: bool, truth: str | None) -> DataReport | None:
    path = annotation_file(dataset)
    if dataset.get('ann_file') and '://' not in path and not osp.isfile(path):
        raise FileNotFoundError(f'annotation file {path} of {source} not found')
    return check_dataset(dataset, source, full, truth)


def _data_sets(cfg: Config, modes: tuple[str, ...]) -> list[tuple[ConfigDict, list[str]]]:
    """Each data set once, with the modes that use it; wrappers aside."""
    found: list[tuple[ConfigDict, list[str]]] = []
    for mode in modes:
        loader = cfg.get(f'{mode}_dataloader') or {}
        for dataset in datasets_of(loader.get('dataset')):
            if 'dataset' in dataset or 'datasets' in dataset:
                continue
            users = next((users for other, users in found if other == dataset), None)
            if users is None:
                found.append((dataset, [mode]))
            elif mode not in users:
                users.append(mode)
    return found


def _check_labels(cfg: Config, report: DataReport, seen: dict[tuple[str, ...], str]) -> None:
    """Labels are numbers: all data sets and the heads must mean the same classes by them."""
    for labels, source in seen.items():
        if labels != report.labels:
            pairs = zip_longest(report.labels, labels)
            number, (own, other) = next((n, p) for n, p in enumerate(pairs) if p[0] != p[1])
            report.add('other labels', [f'label {number} is {own!r}, of {source} it is {other!r}'])
    for name, number in _head_classes(cfg.get('model') or {}):
        if number != len(report.labels):
            report.add(
                'another number of classes than the model',
                [f'{len(report.labels)} classes, {name}.num_classes={number}'],
            )


def _head_classes(model: ConfigDict) -> Iterator[tuple[str, int]]:
    for owner, path in ((model, 'model'), (model.get('roi_head') or {}, 'model.roi_head')):
        heads = owner.get('bbox_head')
        for head in heads if isinstance(heads, list | tuple) else [heads]:
            if isinstance(head, dict) and 'num_classes' in head:
                yield f'{path}.bbox_head', head['num_classes']


def _truths(cfg: Config, mode: str) -> Iterator[str]:
    """The annotation files that ``CocoMetric`` compares with."""
    metrics = cfg.get(f'{mode}_evaluator') or []
    for metric in metrics if isinstance(metrics, list | tuple) else [metrics]:
        path = metric.get('ann_file') if metric.get('type') == 'CocoMetric' else None
        if path and '://' not in path and not metric.get('backend_args'):
            yield path


def _check_truths(cfg: Config, modes: tuple[str, ...]) -> None:
    """Ground truth of other images than are predicted on fails only after the first epoch."""
    for mode in modes:
        loader = cfg.get(f'{mode}_dataloader') or {}
        data_sets = [d for d in datasets_of(loader.get('dataset')) if reads_coco(d)]
        paths = [annotation_file(dataset) for dataset in data_sets]
        for truth in _truths(cfg, mode) if paths else ():
            if not osp.isfile(truth):
                raise FileNotFoundError(f'annotation file {truth} of {mode}_evaluator not found')
            others = [p for p in paths if osp.realpath(p) != osp.realpath(truth)]
            known = _image_ids(truth) if others else set()
            for path in others:
                strange = _image_ids(path) - known
                if strange:
                    raise ValueError(
                        f'{mode}_evaluator.ann_file {truth} lacks image id {min(strange)!r} of '
                        f'{mode}_dataloader ({path}), expected the same images'
                    )


def _image_ids(path: str) -> set:
    return {image['id'] for image in read_coco(path)['images']}


def _check_image_folders(cfg: Config, modes: tuple[str, ...]) -> None:
    found: dict[str, list[str]] = {}
    for mode in modes:
        for dataset in datasets_of(cfg.get(f'{mode}_dataloader', {}).get('dataset')):
            if dataset.get('type') == 'ImageFolder':
                root = dataset.get('data_root')
                found[root] = check_image_folder(root, cfg.get('model', {}).get('num_classes'))
    for root, classes in found.items():
        first, expected = next(iter(found.items()))
        if classes != expected:
            odd = min(set(classes) ^ set(expected))
            has, lacks = (root, first) if odd in classes else (first, root)
            raise ValueError(
                f'image folder {has} has a class {odd!r} that {lacks} lacks, expected the same'
            )


def datasets_of(cfg: ConfigDict | list | None) -> Iterator[ConfigDict]:
    """The configs of data sets, those within wrappers too."""
    if isinstance(cfg, list | tuple):
        for item in cfg:
            yield from datasets_of(item)
    elif cfg is not None:
        yield cfg
        yield from datasets_of(cfg.get('dataset'))
        yield from datasets_of(cfg.get('datasets'))
