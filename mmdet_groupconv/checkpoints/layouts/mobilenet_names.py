"""MobileNetV2's modules: MMDetection's names for torchvision's."""

from mmdet.models.backbones.mobilenet_v2 import MobileNetV2


def from_torchvision(key: str) -> str:
    """``features.2.conv.0.0.weight`` -> ``backbone.layer2.0.expand_conv.conv.weight``."""
    return _renamed(key, _OURS)


def to_torchvision(key: str) -> str:
    """The inverse."""
    return _renamed(key, _THEIRS)


def _names() -> dict[str, str]:
    names = {'features.0': 'backbone.conv1', 'classifier.1': 'fc'}
    index = 1
    for stage, (expand_ratio, _, blocks, _) in enumerate(MobileNetV2.arch_settings, 1):
        for number in range(blocks):
            theirs, ours = f'features.{index}', f'backbone.layer{stage}.{number}'
            names[theirs] = ours  # gate nets have the same names below it
            convs = ['depthwise_conv'] if expand_ratio == 1 else ['expand_conv', 'depthwise_conv']
            for position, conv in enumerate(convs):
                names[f'{theirs}.conv.{position}.0'] = f'{ours}.{conv}.conv'
                names[f'{theirs}.conv.{position}.1'] = f'{ours}.{conv}.bn'
            names[f'{theirs}.conv.{len(convs)}'] = f'{ours}.linear_conv.conv'
            names[f'{theirs}.conv.{len(convs) + 1}'] = f'{ours}.linear_conv.bn'
            index += 1
    for end, part in (('0', 'conv'), ('1', 'bn')):
        names[f'features.0.{end}'] = f'backbone.conv1.{part}'
        names[f'features.{index}.{end}'] = f'backbone.conv2.{part}'
    return names


_OURS = _names()
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def _renamed(key: str, names: dict[str, str]) -> str:
    parts = key.split('.')
    for end in range(len(parts) - 1, 0, -1):  # the innermost module that has another name
        module = '.'.join(parts[:end])
        if module in names:
            return '.'.join((names[module], *parts[end:]))
    return key
