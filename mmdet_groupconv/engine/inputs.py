"""What a run reads, checked before anything is written."""

import os.path as osp
from collections.abc import Iterator

from mmengine.config import Config, ConfigDict
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

_CLASSIFIERS = ('fc.', 'classifier.', 'head.')


def check_data(cfg: Config, modes: tuple[str, ...]) -> None:
    """Raise FileNotFoundError or ValueError where annotations or images of `modes` are missing."""
    _check_annotations(cfg, modes)
    _check_image_folders(cfg, modes)


def _check_annotations(cfg: Config, modes: tuple[str, ...]) -> None:
    for mode in modes:
        for dataset in datasets_of(cfg.get(f'{mode}_dataloader', {}).get('dataset')):
            path = osp.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
            if dataset.get('ann_file') and '://' not in path and not osp.isfile(path):
                raise FileNotFoundError(f'annotation file {path} of {mode}_dataloader not found')


def _check_image_folders(cfg: Config, modes: tuple[str, ...]) -> None:
    found: dict[str, list[str]] = {}
    for mode in modes:
        for dataset in datasets_of(cfg.get(f'{mode}_dataloader', {}).get('dataset')):
            if dataset.get('type') == 'ImageFolder':
                root = dataset.data_root
                found[root] = check_image_folder(root, cfg.model.get('num_classes'))
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
        path = init.get('checkpoint', '')
        if init.get('type') == 'Pretrained' and '://' not in path:
            state = read_state_dict(path, init.get('prefix', ''))
            _check_dense_fit(module, state, path)
            reports.append(loading_report(name or 'model', module, state, path))
    return reports


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
