"""A trained network for another to imitate: read from its files, checked against it, run."""

import copy
import os
from functools import reduce
from typing import Any

import torch
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import Tensor, nn

from ..checkpoints import load_weights
from ..classification import ImageClassifier
from ..layers import evaluating

NECK, FC, RPN, STAGES = 'neck', 'fc', 'rpn_head', 'backbone.'
ROI_HEAD, ROI_EXTRACTOR = 'roi_head.bbox_head', 'roi_head.bbox_roi_extractor'
_SIDE = 64  # pixels of the image whose outputs are compared

# What gives equal shapes another meaning.
_OF_IMAGES = tuple(f'data_preprocessor.{name}' for name in ('mean', 'std', '_channel_conversion'))
_OF_A_PART = (
    'num_classes',
    'reg_class_agnostic',
    *(f'prior_generator.{name}' for name in ('strides', 'base_sizes', 'scales', 'ratios')),
    *(f'bbox_coder.{name}' for name in ('means', 'stds')),
)


def read_teacher(
    config: str | os.PathLike | dict,
    checkpoint: str | os.PathLike,
    student: nn.Module,
    neck: float,
    head: float,
) -> tuple[nn.Module, tuple[str, ...]]:
    """The teacher and the names of the modules whose outputs `student` is to imitate.

    config: its file, or a dict with a ``model``. checkpoint: its weights. neck, head: weights; what
    has 0 is not imitated. Raises FileNotFoundError and ValueError that name the file or setting,
    what was found and what was expected: also where outputs don't mean the same in both networks.
    """
    parts = _parts_to_imitate(student, neck, head)
    teacher = load_teacher(config, checkpoint)
    name = f'{type(teacher).__name__} of {_source(config)}'
    if _parts_to_imitate(teacher, neck, head) != parts:
        raise ValueError(
            f'teacher {name} is of another kind than the student, expected one as '
            f'{type(student).__name__}, or head=0 of DistillationHook'
        )
    theirs, ours = _facts(teacher, parts), _facts(student, parts)
    for key, value in ours.items():
        if theirs[key] != value:
            raise ValueError(
                f'teacher {name}: {key}={theirs[key]}, expected {value} as the student'
            )
    return teacher, parts


def load_teacher(config: str | os.PathLike | dict, checkpoint: str | os.PathLike) -> nn.Module:
    """The config's model with the checkpoint's weights, in evaluation mode, without gradients.

    Draws no random numbers. Raises FileNotFoundError for a missing file, and ValueError for a
    config without a model and a checkpoint that can't be read or is another network's.
    """
    if not isinstance(config, dict) and not os.path.isfile(config):
        raise FileNotFoundError(f'config {config} of the teacher not found')
    cfg = Config(copy.deepcopy(config)) if isinstance(config, dict) else Config.fromfile(config)
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(
            f"config {_source(config)} of the teacher has no dict 'model', expected one"
        )
    with torch.random.fork_rng(devices=[]):  # layers draw weights that are replaced
        teacher = MODELS.build(cfg.model)
    load_weights(teacher, checkpoint)
    teacher.eval()
    return teacher.requires_grad_(False)


@torch.no_grad()
def outputs(
    model: nn.Module, parts: tuple[str, ...], images: Tensor, rois: Tensor | None = None
) -> dict[str, Any]:
    """What `parts` return. images: ``[B, 3, H, W]``, normalised.

    rois: ``[n, 5]``, for a RoI head: the image's number and the corners in pixels.
    """
    if isinstance(model, ImageClassifier):
        return _watched(model, parts, images)
    maps = model.extract_feat(images)
    found: dict[str, Any] = {NECK: maps}
    for part in parts:
        if part == ROI_HEAD:
            result = model.roi_head._bbox_forward(maps, rois)
            found[part] = result['cls_score'], result['bbox_pred']
        elif part != NECK:
            found[part] = model.get_submodule(part)(maps)
    return found


def _watched(model: nn.Module, parts: tuple[str, ...], images: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {}
    handles = [
        model.get_submodule(part).register_forward_hook(
            lambda _, args, output, part=part: found.__setitem__(part, output)
        )
        for part in parts
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _source(config: str | os.PathLike | dict) -> str:
    return 'a dict' if isinstance(config, dict) else f'{config}'


def _parts_to_imitate(model: nn.Module, neck: float, head: float) -> tuple[str, ...]:
    name = type(model).__name__
    if isinstance(model, ImageClassifier):
        if not head:
            raise ValueError(f'head=0 of DistillationHook, expected more: {name} has nothing else')
        return (*(_stages(model) if neck else ()), FC)
    if neck and getattr(model, 'neck', None) is None:
        raise ValueError(f'{name} has no neck, expected one, or neck=0 of DistillationHook')
    return ((NECK,) if neck else ()) + (_heads(model) if head else ())


def _stages(model: nn.Module) -> tuple[str, ...]:
    """Of a classifier's backbone."""
    names = getattr(model.backbone, 'layers', None) or getattr(model.backbone, 'res_layers', ())
    return tuple(f'{STAGES}{name}' for name in names)


def _heads(model: nn.Module) -> tuple[str, ...]:
    heads = (RPN, ROI_HEAD) if hasattr(model, 'roi_head') else ('bbox_head',)
    for head in heads:
        module = _read(model, head)
        expected = BBoxHead if head == ROI_HEAD else AnchorHead
        if not isinstance(module, expected) or not getattr(module, 'use_sigmoid_cls', True):
            raise ValueError(
                f'{head} {type(module).__name__} of {type(model).__name__} can not be imitated, '
                f'expected one {expected.__name__}{" with sigmoids" * (head != ROI_HEAD)}, or '
                'head=0 of DistillationHook'
            )
    return heads


def _facts(model: nn.Module, parts: tuple[str, ...]) -> dict[str, Any]:
    facts = {key: _read(model, key) for key in _OF_IMAGES}
    for part in parts:
        facts.update({f'{part}.{key}': _read(model, f'{part}.{key}') for key in _OF_A_PART})
    image = next(model.parameters()).new_zeros(1, 3, _SIDE, _SIDE)
    roi = image.new_tensor([[0, 0, 0, _SIDE, _SIDE]])
    with evaluating(model):
        found = outputs(model, parts, image, roi)
    shapes = {f'outputs of {part} on {_SIDE} pixels': _shapes(found[part]) for part in parts}
    return facts | shapes


def _read(model: nn.Module, path: str) -> Any:
    value = reduce(lambda owner, name: getattr(owner, name, None), path.split('.'), model)
    return value.flatten().tolist() if isinstance(value, Tensor) else value


def _shapes(output: Any) -> list:
    if isinstance(output, Tensor):
        return list(output.shape[1:])
    return [_shapes(item) for item in output]
