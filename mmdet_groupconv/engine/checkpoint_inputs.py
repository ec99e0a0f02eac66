"""The checkpoints that a run begins with, checked before anything is written."""

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from ..checkpoints import (
    below_prefix,
    check_fit,
    check_grouping,
    grouping_keys,
    latest_checkpoint,
    loading_report,
    read_state_dict,
    trimmed_keys,
)

_CLASSIFIERS = ('fc.', 'classifier.', 'head.')


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
    state = read_state_dict(path)
    if 'test' in modes or cfg.get('resume'):
        check_fit(model, state, path)
    elif hasattr(model, 'backbone'):  # heads may be new: fine-tuning on other classes
        _check_dense_fit(model.backbone, below_prefix(state, 'backbone', path), path)
        reports.append(loading_report('model', model, state, path))
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
