"""From a classification run to a file that detectors begin with."""

import hashlib
import io
import os
from pathlib import Path

import torch

from .network import Network
from .reading import read_checkpoint
from .writing import whole_file

_PREFIX = 'backbone.'


def publish_backbone(source: str | os.PathLike, out: str | os.PathLike) -> tuple[Path, int]:
    """Write the ``backbone.*`` tensors of a checkpoint, without optimizer and classifier.

    The name gets the first eight hex digits of the file's SHA-256 as MMDetection's files have them:
    ``msgc-r18.pth`` -> ``msgc-r18-1a2b3c4d.pth``; the same tensors of the same epoch give the same
    name, whatever file they come from.
    Returns the path and how many tensors the file holds.

    Raises as :func:`~mmdet_groupconv.checkpoints.read_state_dict`, and ValueError for a checkpoint
    without a backbone.
    """
    state, meta = read_checkpoint(source)
    backbone = {key: value for key, value in state.items() if key.startswith(_PREFIX)}
    if not backbone:
        raise ValueError(
            f'checkpoint {source} has no keys that begin with {_PREFIX!r}, expected the checkpoint '
            'of a classifier'
        )
    kept = {key: meta[key] for key in ('epoch', *Network._fields) if key in meta}
    content = io.BytesIO()
    torch.save(dict(meta=kept, state_dict=backbone), content)
    digits = hashlib.sha256(content.getvalue()).hexdigest()[:8]
    out = Path(out)
    path = out.with_name(f'{out.stem}-{digits}{out.suffix or ".pth"}')
    with whole_file(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return path, len(backbone)
