"""ResNet's modules: MMDetection's names are torchvision's, but for DGC's shortcuts."""

_DGC_NORM, _NORM = '.downsample.1.norm.', '.downsample.1.'


def from_torchvision(key: str) -> str:
    """``layer1.0.conv1.weight`` -> ``backbone.layer1.0.conv1.weight``; ``fc.*`` stays."""
    return key if key.startswith('fc.') else f'backbone.{key.replace(_DGC_NORM, _NORM)}'


def to_torchvision(key: str, method: str) -> str:
    """The inverse. method: DGC's shortcuts keep their norm one level further down."""
    key = key.removeprefix('backbone.')
    return key.replace(_NORM, _DGC_NORM) if method == 'dgc' else key
