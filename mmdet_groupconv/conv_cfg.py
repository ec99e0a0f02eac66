"""Grouped layers by name, for every ``conv_cfg`` of MMDetection.

MMCV's ``build_conv_layer`` hands a layer the host's arguments and those of the ``conv_cfg`` side by
side, and hosts always pass ``groups``: ``conv_cfg=dict(type='FLGCConv2d', groups=8)`` would be a
TypeError, and a depthwise or ResNeXt convolution could not say that it is grouped already. So for
our layers, and for no others, building goes through :func:`build_conv_layer`.
"""

import inspect
import sys
from types import ModuleType

from mmcv.cnn.bricks import conv as mmcv_conv
from mmengine.registry import MODELS
from torch import nn

from .arguments import check_type, refuse_unknown
from .layers import (
    DGCConv2d,
    FixedGroupConv2d,
    FLGCConv2d,
    GroupedConv2d,
    GroupedLayer,
    MSGCConv2d,
    SeparableConv2d,
    SGCConv2d,
    SGCLinear,
)

LAYERS = (
    GroupedConv2d,
    MSGCConv2d,
    DGCConv2d,
    FixedGroupConv2d,
    FLGCConv2d,
    SGCConv2d,
    SeparableConv2d,
    SGCLinear,
)
_IMAGE_CHANNELS = 3
_build_other = mmcv_conv.build_conv_layer


def register_layers() -> None:
    """Make the layers known in MMEngine's root registry, which every scope falls back to."""
    for layer in LAYERS:
        MODELS.register_module(module=layer)
    # Hosts that were imported earlier hold the name themselves.
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            namespace = object.__getattribute__(module, '__dict__')
            if namespace.get('build_conv_layer') is _build_other:
                module.build_conv_layer = build_conv_layer


def build_conv_layer(cfg: dict | None, *args, **kwargs) -> nn.Module:
    """As MMCV's. A gated layer is built where it can be, else a plain convolution.

    A plain one remembers why, in its attribute ``why_dense``: the host groups it already
    (depthwise, ResNeXt), it reads the image (a stem), or it has too few channels for the method.

    Raises ValueError for arguments out of range and TypeError for unknown ones, naming the layer.
    """
    check_type('conv_cfg', cfg)
    layer = _ours(cfg.get('type')) if cfg else None
    if layer is not None and not issubclass(layer, GroupedConv2d | SeparableConv2d):
        raise ValueError(f'conv_cfg={cfg!r}, expected the type of a convolution')
    if layer is None:
        return _build_other(cfg, *args, **kwargs)
    method = _method(layer, cfg)
    if layer is SeparableConv2d:
        pointwise_cfg = method.pop('pointwise_cfg', None)
        method['pointwise'] = lambda *a, **k: build_conv_layer(pointwise_cfg, *a, **k)
    return _build(layer, method, *args, **kwargs)


def replace_layer(host: nn.Module, name: str, cfg: dict) -> None:
    """Put a layer of `cfg` in the place of a plain convolution or linear layer that `host` holds.

    name: below `host`, dots and all. For hosts that build it themselves, whatever the config says.
    """
    parent, _, attribute = name.rpartition('.')
    parent = host.get_submodule(parent)
    old = getattr(parent, attribute)
    if isinstance(old, nn.Linear):
        check_type('linear_cfg', cfg)
        layer = _ours(cfg['type']) if cfg else None
        if cfg is None or (layer is not None and not issubclass(layer, nn.Linear)):
            raise ValueError(f'linear_cfg={cfg!r}, expected the type of a linear layer: SGCLinear')
        if layer:
            _method(layer, cfg)  # refuses unknown arguments
        sizes = dict(in_features=old.in_features, out_features=old.out_features)
        new = MODELS.build(dict(cfg, **sizes, bias=old.bias is not None))
    else:
        geometry = {key: getattr(old, key) for key in ('stride', 'padding', 'dilation', 'groups')}
        new = build_conv_layer(
            cfg,
            old.in_channels,
            old.out_channels,
            old.kernel_size,
            bias=old.bias is not None,
            **geometry,
        )
    setattr(parent, attribute, new)


def _ours(kind: str | type | None) -> type | None:
    layer = kind if inspect.isclass(kind) else MODELS.get(kind) if kind else None
    ours = inspect.isclass(layer) and issubclass(layer, (GroupedLayer, SeparableConv2d))
    return layer if ours else None


def _method(layer: type, cfg: dict) -> dict:
    # What the layer is to get, by whichever of its bases.
    known = {'pointwise_cfg'} if layer is SeparableConv2d else set()
    for base in layer.__mro__:
        if issubclass(base, nn.Module) and base is not nn.Module:
            known.update(inspect.signature(base).parameters)
    method = {key: value for key, value in cfg.items() if key != 'type'}
    refuse_unknown(layer.__name__, method, known - {'args', 'kwargs', 'pointwise'})
    return method


def _build(
    layer: type, method: dict, in_channels: int, out_channels: int, kernel_size,
    *args, groups: int = 1, **geometry,
) -> nn.Module:  # fmt: skip
    sizes = in_channels, out_channels, kernel_size, *args
    why_dense = None
    if groups > 1:
        why_dense = f'its host groups it by {groups}'
    elif in_channels <= _IMAGE_CHANNELS:
        why_dense = 'it reads the image'
    elif issubclass(layer, GroupedConv2d):
        why_dense = layer.why_dense(in_channels, out_channels, **method)
    if why_dense is None:
        return layer(*sizes, **geometry, **method)
    plain = nn.Conv2d(*sizes, groups=groups, **geometry)
    plain.why_dense = why_dense
    return plain
