"""What a run reads, checked before anything is written."""

import os.path as osp
from collections.abc import Callable, Iterator
from itertools import zip_longest

from mmengine.config import Config, ConfigDict
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from ..checkpoints import (
    check_fit,
    check_grouping,
    grouping_keys,
    latest_checkpoint,
    loading_report,
    read_state_dict,
    trimmed_keys,
)
from ..classification import check_image_folder
from ..datasets.check import annotation_file, check_dataset, reads_coco
from ..datasets.coco_file import read_coco
from ..datasets.report import DataReport, Problem

_CLASSIFIERS = ('fc.', 'classifier.', 'head.')


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


def check_checkpoints(cfg: Config, model: nn.Module, modes: tuple[str, ...]) -> list[str]:
    """Check the files that `model`, the config's, will begin with.

    Returns a line for each file that training will load, of what comes from it and what doesn't.
    Raises FileNotFoundError and ValueError that name the file.
    """
    reports = _check_pretrained(model) if 'train' in modes else []  # nothing else initialises
    path = cfg.get('load_from')
    if cfg.get('resume') and not path:
        path, _ = latest_checkpoint(cfg.work_dir)
    if not path or '://' in path:
        return reports
    if 'test' in modes or cfg.get('resume'):
        check_fit(model, read_state_dict(path), path)
    elif hasattr(model, 'backbone'):  # heads may be new: fine-tuning on other classes
        _check_dense_fit(model.backbone, read_state_dict(path, 'backbone'), path)
        reports.append(loading_report('model', model, read_state_dict(path), path))
    return reports


def _check_pretrained(model: nn.Module) -> list[str]:
    reports = []
    for name, module, init in _initialisations(model):
        _check_init(name or 'model', init)
        path = init.get('checkpoint', '')
        if init.get('type') == 'Pretrained' and '://' not in path:
            state = read_state_dict(path, init.get('prefix', ''))
            _check_dense_fit(module, state, path)
            reports.append(loading_report(name or 'model', module, state, path))
    return reports


def _check_init(name: str, init: dict) -> None:
    kind = init.get('type') if isinstance(init, dict) else None
    if not isinstance(kind, str) or WEIGHT_INITIALIZERS.get(kind) is None:
        known = ', '.join(sorted(WEIGHT_INITIALIZERS.module_dict))
        raise ValueError(f'init_cfg={init!r} of {name}, expected a dict with a type of {known}')
    path = init.get('checkpoint')
    if kind == 'Pretrained' and (not isinstance(path, str) or not path):
        raise ValueError(f'init_cfg={init!r} of {name}, expected the file as checkpoint')


def _initialisations(model: nn.Module) -> Iterator[tuple[str, nn.Module, dict]]:
    for name, module in model.named_modules():
        for init in _as_list(getattr(module, 'init_cfg', None)):
            yield name, module, init
    for init in _as_list(getattr(model, 'fc_init_cfg', None)):  # of an ImageClassifier
        yield 'fc', model.fc, init


def _check_dense_fit(module: nn.Module, state: dict, path: str) -> None:
    may_add = (*_CLASSIFIERS, *trimmed_keys(module))
    check_fit(module, state, path, may_lack=grouping_keys(module), may_add=may_add)
    check_grouping(module, state, path)


def _as_list(init_cfg: dict | list | None) -> list:
    return init_cfg if isinstance(init_cfg, list) else [init_cfg] if init_cfg else []
