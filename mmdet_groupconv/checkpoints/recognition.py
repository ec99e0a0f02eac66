"""Which classifier a state dict is for, told by its keys and shapes."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mmdet.models.backbones.mobilenet_v2 import MobileNetV2
from mmdet.models.backbones.resnet import Bottleneck, ResNet
from mmdet.models.utils import make_divisible
from torch import Tensor

from .network import Network

# What only one method's state dicts have, in our layout or in the published one.
_MARKS = dict(
    msgc=r'\.maskgen\d?\.',
    dgc=r'\.(headconv_\d+|saliency)\.',
    flgc=r'\.channel_logits$',
    sgc=r'\._?mask$',
)


def describe(state: dict[str, Tensor], name: str | None = None) -> Network:
    """The network that comes closest to a state dict, which may still have faults.

    state: names of modules are ours, ``backbone.*`` and ``fc.*``; a method's own tensors may be
    in the published form. name: one of NETWORKS, where that is known; else told by the keys.

    Raises ValueError where there are no blocks of a ResNet or a MobileNetV2.
    """
    blocks = {}
    for key in state:
        match = re.match(r'backbone\.(layer\d+\.\d+)\.(\w+)', key)
        if match:
            blocks.setdefault(match[1], set()).add(match[2])
    method, host, depth = _parse(name) if name else _kind(state, blocks)
    sizes: dict[str, Any] = dict(num_classes=_size(state, 'fc.bias', 1000))
    if host == 'resnet':
        sizes.update(depth=depth, base_channels=_base_channels(state))
    else:
        sizes.update(widen_factor=_widen_factor(state))
    if method == 'msgc':
        attended = _commonest(any('attgen' in part for part in parts) for parts in blocks.values())
        sizes.update(heads=_msgc_heads(state), attention=bool(attended))
    elif method == 'dgc':
        sizes.update(heads=_dgc_heads(state))
    elif method == 'flgc':
        logits = (value for key, value in state.items() if re.search(_MARKS['flgc'], key))
        sizes.update(groups=_commonest(value.shape[-1:].numel() for value in logits) or 4)
    elif method == 'sgc':
        sizes.update(masked_fc='fc.mask' in state or 'fc._mask' in state)
    return Network(method, host, **sizes)


def _parse(name: str) -> tuple[str, str, int | None]:
    method, host = name.split('-')
    depth = host.removeprefix('resnet')
    return (method, 'resnet', int(depth)) if depth != host else (method, host, None)


def _kind(state: Iterable[str], blocks: dict[str, set[str]]) -> tuple[str, str, int | None]:
    found = (name for name, mark in _MARKS.items() if any(re.search(mark, key) for key in state))
    method = next(found, 'dense')
    if any('linear_conv' in parts for parts in blocks.values()):
        return method, 'mobilenetv2', None
    if not any('conv1' in parts for parts in blocks.values()):
        raise ValueError('no blocks of a ResNet or a MobileNetV2 found among its keys')
    return method, 'resnet', _depth(blocks)


def _depth(blocks: dict[str, set[str]]) -> int:
    deep = _commonest('conv3' in parts for parts in blocks.values())

    def differing(depth: int) -> int:
        stages = enumerate(ResNet.arch_settings[depth][1], 1)
        own = {f'layer{stage}.{number}' for stage, count in stages for number in range(count)}
        return len(own - blocks.keys()) + 2 * len(blocks.keys() - own)  # more often cut than mixed

    depths = (d for d, (kind, _) in ResNet.arch_settings.items() if (kind is Bottleneck) == deep)
    return min(depths, key=differing)


def _base_channels(state: dict[str, Tensor]) -> int:
    widths = []  # of the blocks: they double from stage to stage
    for key, value in state.items():
        match = re.fullmatch(r'backbone\.layer([1-4])\.\d+\.bn1\.bias', key)
        if match:
            widths.append(value.numel() >> int(match[1]) - 1)
    return _commonest(widths) or 64


def _widen_factor(state: dict[str, Tensor]) -> float:
    widths = {
        channels: _size(state, f'backbone.layer{stage}.0.linear_conv.bn.bias', None)
        for stage, (_, channels, *_) in enumerate(MobileNetV2.arch_settings, 1)
    }
    for factor in (1.0, *(twentieths / 20 for twentieths in range(2, 41))):
        if all(w in (None, make_divisible(c * factor, 8)) for c, w in widths.items()):
            return factor
    return 1.0


def _msgc_heads(state: dict[str, Tensor]) -> int:
    heads = []
    for key, bias in state.items():
        match = re.fullmatch(r'(backbone\.layer\d+\.\d+)\.maskgen2?\.conv\.3\.bias', key)
        norms = ('bn1', 'depthwise_conv.bn')  # of the channels that the heads choose from
        for norm in norms if match else ():
            channels = state.get(f'{match[1]}.{norm}.bias')
            if channels is not None:
                heads.append(bias.numel() // max(1, channels.numel()))
    return _commonest(heads) or 4


def _dgc_heads(state: dict[str, Tensor]) -> int:
    published = (re.fullmatch(r'(.+)\.headconv_\d+\.fc2\.bias', key) for key in state)
    heads = list(Counter(match[1] for match in published if match).values())
    for key, bias in state.items():
        norm = state.get(key.replace('.saliency.fc2.', '.norm.'))
        if key.endswith('.saliency.fc2.bias') and norm is not None:
            heads.append(bias.numel() // max(1, norm.numel()))
    return _commonest(heads) or 4


def _size(state: dict[str, Tensor], key: str, default: int | None) -> int | None:
    return (state[key].numel() if key in state else 0) or default


def _commonest(values: Iterable) -> Any:
    """None of none: in a state dict with faults most of the layers may still be right."""
    return next((value for value, _ in Counter(values).most_common(1)), None)
