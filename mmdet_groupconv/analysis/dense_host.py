"""The dense network that a grouped one stands in for."""

import copy
from inspect import signature
from typing import Any

from mmdet.models.backbones.resnet import ResNet
from mmdet.models.dense_heads import RetinaHead, RPNHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn

from ..backbones.grouped_mobilenet_v2 import GroupedMobileNetV2, TrimmedMobileNetV2
from ..backbones.grouped_resnet import GroupedResNet
from ..heads import GroupedRetinaHead, GroupedRPNHead, GroupedShared2FCBBoxHead
from ..layers import GroupedLayer

# With the setting of a head that names its layers: where that is left, it is a dense layer's.
_HOSTS = {
    GroupedResNet: (ResNet, None),
    GroupedMobileNetV2: (TrimmedMobileNetV2, None),
    GroupedRetinaHead: (RetinaHead, 'pred_cfg'),
    GroupedRPNHead: (RPNHead, 'conv_cfg'),
    GroupedShared2FCBBoxHead: (Shared2FCBBoxHead, 'linear_cfg'),
}


def dense_model_cfg(cfg: Any) -> Any:
    """A model's config with dense layers wherever grouped ones were; what is dense stays.

    cfg: a config, or a value in one.
    """
    if isinstance(cfg, list | tuple):
        return type(cfg)(dense_model_cfg(item) for item in cfg)
    if not isinstance(cfg, dict):
        return cfg
    dense = ConfigDict(
        (key, dense_model_cfg(value)) for key, value in cfg.items() if not _is_grouped(value)
    )
    host, layer_cfg = _host(cfg.get('type'))
    if host is not None and layer_cfg not in dense:
        known = {'type', *(name for base in host.__mro__[:-1] for name in _arguments(base))}
        dense = ConfigDict({k: v for k, v in dense.items() if k in known}, type=host.__name__)
    return dense


def dense_host(model: nn.Module, cfg: Any) -> nn.Module:
    """What a model's config gives without groups, with the model's weights, on its device.

    It finds about as many objects, which takes about as long. Weights under other names or of
    other shapes are left as they come.
    """
    host = MODELS.build(dense_model_cfg(copy.deepcopy(cfg)))
    own = host.state_dict()
    shared = {
        key: value
        for key, value in model.state_dict().items()
        if key in own and value.shape == own[key].shape
    }
    host.load_state_dict(shared, strict=False)
    return host.to(next(model.parameters()).device).train(model.training)


def _is_grouped(cfg: Any) -> bool:
    layer = _class(cfg.get('type')) if isinstance(cfg, dict) else None
    return layer is not None and issubclass(layer, GroupedLayer)


def _host(kind: Any) -> tuple[type | None, str | None]:
    found = _class(kind)
    hosts = (host for base, host in _HOSTS.items() if found is not None and issubclass(found, base))
    return next(hosts, (None, None))


def _class(kind: Any) -> type | None:
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    return found if isinstance(found, type) else None


def _arguments(host: type) -> list[str]:
    return list(signature(host.__init__).parameters)[1:]
