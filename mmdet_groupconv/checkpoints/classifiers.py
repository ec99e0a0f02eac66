"""Classifiers' checkpoints of whatever origin, and the way back to the published files."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .fit import MisfitError, check_keys
from .layouts import PublishedLayout, find_layout, take_dense_masks
from .network import Network
from .reading import read_checkpoint
from .recognition import describe
from .writing import save_whole, write_checkpoint

# Of a file that is read, what its own way back or its next reader needs.
_KEPT = ('epoch', 'best_prec1', 'dense_masks', 'dataset_meta')


class Classifier(NamedTuple):
    """A network and its weights.

    state: keys ``backbone.*`` and ``fc.*``. parameters: how many numbers are trained.
    published: whether it came in the layout of the method's authors, or torchvision's.
    epoch, best_prec1 of training, dataset_meta and `dense_masks` (layers that SG-CNN's file had
    needless masks for) are in meta where the file tells.
    """

    network: Network
    state: dict[str, Tensor]
    meta: dict
    parameters: int
    published: bool


def read_classifier(path: str | os.PathLike, name: str | None = None) -> Classifier:
    """Read a checkpoint of torchvision, MMPretrain, the methods' authors, or our own.

    name: what it has to be, one of NETWORKS; else that is told by keys and shapes.

    Raises FileNotFoundError; MisfitError where keys or shapes are not the network's; ValueError
    for a file that is no classifier of a network known here, or whose masks can't be kept.
    """
    state, meta = read_checkpoint(path)
    meta = {key: meta[key] for key in _KEPT if key in meta}
    try:
        return _classifier(state, meta, name, str(path))
    except MisfitError:
        raise
    except ValueError as error:
        raise ValueError(f'checkpoint {path}: {error}') from error


def _classifier(state: dict[str, Tensor], meta: dict, name: str | None, source: str) -> Classifier:
    other = next((key for key, value in state.items() if not isinstance(value, Tensor)), None)
    if other is not None:
        raise ValueError(f'{other} is {type(state[other]).__name__}, expected tensors only')
    layout = find_layout(state)
    network = describe({layout.our_name(key): value for key, value in state.items()}, name)
    model = network.build()
    expected = layout.theirs(model.state_dict(), network)
    dense_masks = take_dense_masks(state, expected) if network.method == 'sgc' else []
    if dense_masks:
        meta = dict(meta, dense_masks=dense_masks)
    check_keys(expected, state, source, network.name)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    published = isinstance(layout, PublishedLayout)
    return Classifier(network, layout.ours(state), meta, parameters, published)


def write_classifier(
    path: str | os.PathLike, classifier: Classifier, source: str | os.PathLike
) -> None:
    """Write a file that ``init_cfg=dict(type='Pretrained', ...)`` and our classifiers load.

    source: the file that it comes from; its name and hash are noted in ``meta``.
    """
    network = {k: v for k, v in classifier.network._asdict().items() if v is not None}
    origin = dict(source=Path(source).name, sha256=_sha256(source))
    write_checkpoint(path, classifier.state, dict(network, **origin, **classifier.meta))


def published_content(classifier: Classifier) -> dict:
    """What the method's authors have in their files; of a dense network, torchvision.

    Raises ValueError where there is no published layout for it.
    """
    network, meta = classifier.network, classifier.meta
    state = PublishedLayout().theirs(classifier.state, network)
    for layer in meta.get('dense_masks', ()):
        state[f'{layer}._mask'] = torch.ones_like(state[f'{layer}.weight'])
    if network.method not in ('msgc', 'dgc'):
        return state
    training = {key: meta[key] for key in ('epoch', 'best_prec1') if key in meta}
    return dict(training, state_dict={f'module.{key}': value for key, value in state.items()})


def write_published(path: str | os.PathLike, classifier: Classifier) -> None:
    """Write :func:`published_content`; raises as that does, and OSError."""
    save_whole(path, published_content(classifier))


def _sha256(path: str | os.PathLike) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
