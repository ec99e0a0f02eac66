"""Between our state dicts and those of torchvision, MMPretrain and the methods' authors."""

from . import mobilenet_names
from .layout import ClassifierLayout, Layout, PublishedLayout, find_layout
from .sgc_masks import take_dense_masks

__all__ = [
    'ClassifierLayout',
    'Layout',
    'PublishedLayout',
    'find_layout',
    'mobilenet_names',
    'take_dense_masks',
]
