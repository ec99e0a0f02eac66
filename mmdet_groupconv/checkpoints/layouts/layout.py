"""How a file names a classifier's tensors and how it holds what belongs to the method."""

import re
from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from ..network import Network
from . import mobilenet_names, resnet_names
from .dgc_heads import merge_heads, split_heads
from .sgc_masks import merge_masks, spread_masks


class Layout(Protocol):
    """Ours are ``backbone.*`` with MMDetection's names, and ``fc.*``."""

    def our_name(self, key: str) -> str:
        """Our name of a module's tensor; the method's own tensors keep the end of theirs."""

    def ours(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Theirs -> ours, for a state dict whose keys and shapes are right.

        Raises ValueError for values that can't be kept.
        """

    def theirs(self, state: dict[str, Tensor], network: Network) -> dict[str, Tensor]:
        """Ours -> theirs.

        Raises ValueError where theirs has no form for `network`.
        """


class ClassifierLayout:
    """Ours, and those of MMDetection's family.

    head: what the linear layer's keys begin with, ``fc.`` or ``head.fc.``.
    """

    def __init__(self, head: str) -> None:
        self.head = head

    def our_name(self, key: str) -> str:
        """See :class:`Layout`."""
        return f'fc.{key.removeprefix(self.head)}' if key.startswith(self.head) else key

    def ours(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Layout`."""
        return {self.our_name(key): value for key, value in state.items()}

    def theirs(self, state: dict[str, Tensor], network: Network) -> dict[str, Tensor]:
        """See :class:`Layout`."""
        return {
            self.head + key.removeprefix('fc.') if key.startswith('fc.') else key: value
            for key, value in state.items()
        }


class PublishedLayout:
    """Torchvision's names, with the tensors of the methods as their authors have them."""

    def our_name(self, key: str) -> str:
        """See :class:`Layout`."""
        mobile = key.startswith(('features.', 'classifier.'))
        return (mobilenet_names if mobile else resnet_names).from_torchvision(key)

    def ours(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Layout`."""
        return merge_masks(merge_heads({self.our_name(k): v for k, v in state.items()}))

    def theirs(self, state: dict[str, Tensor], network: Network) -> dict[str, Tensor]:
        """See :class:`Layout`."""
        if network.method == 'flgc':
            raise ValueError(
                f'{network.name} has no published layout: no FLGC weights were released'
            )
        if network.method == 'dgc':
            state = split_heads(state, network.heads)
        elif network.method == 'sgc':
            state = spread_masks(state)
        if network.host == 'mobilenetv2':
            return {mobilenet_names.to_torchvision(key): v for key, v in state.items()}
        return {resnet_names.to_torchvision(k, network.method): v for k, v in state.items()}


def find_layout(keys: Iterable[str]) -> Layout:
    """The layout of a state dict with these keys.

    Raises ValueError for a CondenseNet, and for what is no classifier that is known here.
    """
    keys = list(keys)
    if any(key.startswith('features.denseblock_') for key in keys):
        raise ValueError(
            'it is a CondenseNet, for which there is no host here: ResNet and MobileNetV2 only'
        )
    if any(key.startswith('backbone.') for key in keys):
        detached = any(key.startswith('head.') for key in keys)
        return ClassifierLayout('head.fc.' if detached else 'fc.')
    if any(re.match(r'layer\d+\.\d+\.|features\.\d+\.', key) for key in keys):
        return PublishedLayout()
    raise ValueError(
        f'it is no classifier on a ResNet or a MobileNetV2: expected keys layer1.0.*, features.1.* '
        f'or backbone.*, its first is {keys[0]}'
    )
