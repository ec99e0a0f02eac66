"""A dense detector's config, with its layers grouped by a method."""

import copy
import inspect
from typing import Any

from mmdet.models.backbones import MobileNetV2, ResNet
from mmdet.models.dense_heads import RetinaHead, RPNHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmengine.config import Config

from ..arguments import check_type
from ..backbones import TrimmedMobileNetV2
from ..heads import GroupedRetinaHead, GroupedRPNHead, GroupedShared2FCBBoxHead
from ..layers import SeparableConv2d
from .mac_ratio_hook import MACRatioHook, hook_class

BY_IMAGE = ('msgc', 'dgc')
MOST_GROUPS = 16

_LAYERS = dict(
    fixed=dict(type='FixedGroupConv2d', groups=MOST_GROUPS),
    flgc=dict(type='FLGCConv2d', groups=MOST_GROUPS),
    sgc=dict(type='SGCConv2d'),
    msgc=dict(type='MSGCConv2d'),
    dgc=dict(type='DGCConv2d', pre_norm=False),
)
METHODS = tuple(_LAYERS)
_BACKBONES = dict(fixed='FixedGroup', flgc='FLGC', sgc='SGC', msgc='MSGC', dgc='DGC')
# What decides gates, and learns without decay; with SGD, so many times as fast as the weights.
_RATES = dict(
    flgc=dict(channel_logits=1.0, filter_logits=1.0),
    msgc=dict(maskgen=5.0, attgen=5.0),
    dgc=dict(saliency=1.0),
)
_ADAM_RATE = 1e-3  # theirs, at least: a step moves a logit as far, and some hundred have to do


def grouped_config(dense: Config, method: str, scope: str, hook: dict) -> Config:
    """The config that fine-tunes a dense detector in groups; `dense` stays as it is.

    Weights are to come from ``load_from``, so nothing else initialises them, and what is grouped is
    not frozen. The learning rate goes by the dense detector's, see :func:`scale_rate`.

    dense: its config, whose backbone is a ResNet or MobileNetV2. method: one of METHODS. scope:
    'backbone' or 'detector', with neck and heads where their layers can be chosen. hook: of the
    method, in the place of others of ours.

    Raises ValueError for other backbones.
    """
    cfg = copy.deepcopy(dense)
    model = cfg.model
    conv_cfg = _LAYERS[method]
    arguments = {k: v for k, v in conv_cfg.items() if k != 'type'}
    if method == 'msgc':
        arguments['over_batch'] = False  # a few images of one kind say little of others
    _group_backbone(model.backbone, method, arguments)
    if scope == 'detector':
        for part in ('neck', 'bbox_head', 'rpn_head'):
            for piece in _listed(model.get(part)):
                _group_part(piece, conv_cfg)
        roi_head = model.get('roi_head') or {}
        _group_box_heads(roi_head.get('bbox_head'))
        for head in _listed(roi_head.get('mask_head')):
            _group_part(head, conv_cfg)
    cfg.custom_imports = _with_our_imports(cfg.get('custom_imports'))
    others = [hook for hook in cfg.get('custom_hooks') or [] if not _counts_macs(hook)]
    cfg.custom_hooks = [*others, hook]
    _fine_tune(cfg, method)
    return cfg


def _group_backbone(backbone: Any, method: str, arguments: dict) -> None:
    found = MODELS.get(backbone['type']) if isinstance(backbone['type'], str) else backbone['type']
    host = {ResNet: 'ResNet', MobileNetV2: 'MobileNetV2', TrimmedMobileNetV2: 'MobileNetV2'}.get(
        found
    )
    if host is None:
        raise ValueError(
            f'model.backbone has type {backbone["type"]}, expected ResNet or MobileNetV2'
        )
    backbone.update(arguments, type=f'{_BACKBONES[method]}{host}', init_cfg=None)
    backbone.pop('pretrained', None)
    if backbone.get('frozen_stages', -1) > 0:
        backbone['frozen_stages'] = 0  # the stem alone: it isn't grouped


def _group_part(part: Any, conv_cfg: dict) -> None:
    """A neck, a dense or a mask head; what takes no ``conv_cfg`` stays as it is."""
    cls = MODELS.get(part['type'])
    own = _within(part.get('conv_cfg'), conv_cfg)
    if cls in (RetinaHead, GroupedRetinaHead):
        pred_cfg = _within(part.get('pred_cfg'), conv_cfg)
        part.update(type='GroupedRetinaHead', conv_cfg=own, pred_cfg=pred_cfg)
    elif cls in (RPNHead, GroupedRPNHead):
        part.update(type='GroupedRPNHead', conv_cfg=own)
    elif any('conv_cfg' in inspect.signature(base).parameters for base in cls.__mro__[:-1]):
        part['conv_cfg'] = own


def _within(own: dict | None, conv_cfg: dict) -> dict:
    """Of a depthwise separable convolution, the 1x1 half is grouped."""
    check_type('conv_cfg', own)
    if own is not None and MODELS.get(own['type']) is SeparableConv2d:
        return dict(own, pointwise_cfg=conv_cfg)
    return dict(conv_cfg)


def _group_box_heads(heads: Any) -> None:
    """Fully connected layers: only SGC has one, so it is every method's."""
    for head in _listed(heads):
        if MODELS.get(head['type']) in (Shared2FCBBoxHead, GroupedShared2FCBBoxHead):
            head.update(type='GroupedShared2FCBBoxHead', linear_cfg=dict(type='SGCLinear'))


def _listed(part: Any) -> list:
    return list(part) if isinstance(part, list | tuple) else [part] if part else []


def _counts_macs(hook: dict) -> bool:
    found = hook_class(hook)
    return isinstance(found, type) and issubclass(found, MACRatioHook)


def _with_our_imports(imports: dict | None) -> dict:
    names = list((imports or {}).get('imports', []))
    if 'mmdet_groupconv' not in names:
        names.append('mmdet_groupconv')
    return dict(imports=names, allow_failed_imports=False)


def scale_rate(cfg: Config) -> None:
    """From the learning rate of the dense detector's training to that of a fine-tuning.

    Filters read less than they did, and the rate stays; but Adam's steps are as long whatever a
    filter reads, so it gets twice the rate (by inputs, as in muP: Yang et al., 2022, table 3).
    """
    cfg.optim_wrapper.optimizer.lr *= 2.0 if _is_adam(cfg) else 1.0


def _is_adam(cfg: Config) -> bool:
    return 'Adam' in str(cfg.optim_wrapper.optimizer.type)


def _fine_tune(cfg: Config, method: str) -> None:
    scale_rate(cfg)
    wrapper = cfg.optim_wrapper
    adam = max(1.0, _ADAM_RATE / wrapper.optimizer.lr)
    rates = {
        name: dict(lr_mult=adam if _is_adam(cfg) else rate, decay_mult=0.0)
        for name, rate in _RATES.get(method, {}).items()
    }
    if rates:
        paramwise = dict(wrapper.get('paramwise_cfg') or {})
        paramwise['custom_keys'] = dict(paramwise.get('custom_keys') or {}, **rates)
        wrapper.paramwise_cfg = paramwise


def schedule(cfg: Config, method: str, macs: float, scope: str) -> dict:
    """The hook that brings a method from the dense detector to its share of the scope's MACs.

    Static groups start from weights that were fitted to them, so there is nothing to bring down.
    Gates close within the first half of the run, so that the rest mends it.
    """
    if method == 'dgc':
        return dict(type='DGCScheduleHook', start=0.0, stop=0.5)
    if method == 'msgc':
        weight = 5.0 if _is_adam(cfg) else 30.0  # AdamW scales each gradient by its own size
        return dict(
            type='MACBudgetHook', target=macs, scope=scope, weight=weight, stop=0.4, settle=0.0,
            slack=0.02,
        )  # fmt: skip
    return dict(type='MACRatioHook')
