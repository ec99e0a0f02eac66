"""From a network to the ONNX graph that PyTorch traces."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import onnx
import onnx_ir as ir
import torch
from torch import nn

from ..compiler.compact import compact
from ..compiler.unit import Unit
from ..layers import evaluating
from .graph import read
from .traced import traceable

OPSET = 17


class Traced(NamedTuple):
    """graph: height and width of images are free. by_image: whether gates come with the image."""

    graph: ir.Model
    by_image: bool


def trace(model: nn.Module, part: Callable[[nn.Module], nn.Module]) -> Traced:
    """The graph of a network up to the outputs that `part` gives it.

    Norms are folded. Convolutions whose connections are fixed are dense ones with zeros, and the
    batch is free, unless the part is for one image. Where gates come with the image, the graph
    finds out which channels to gather, for one image at a time.
    """
    whole = part(model)
    fast = compact(model).cpu()
    by_image = any(unit.per_image for unit in fast.modules() if isinstance(unit, Unit))
    ready, images = part(traceable(fast)).eval(), whole.example()
    images = images[:1] if by_image else images
    axes = {2: 'height', 3: 'width'} if len(images) == 1 else {0: 'batch', 2: 'height', 3: 'width'}
    named = getattr(whole, 'axes', {})
    with torch.no_grad(), evaluating(model):
        whole(images.to(next(model.parameters()).device))  # for the names
    with torch.no_grad(), _quiet():
        file = io.BytesIO()
        torch.onnx.export(
            ready,
            (images,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=['images'],
            output_names=list(whole.names),
            dynamic_axes={'images': axes, **named},
        )
    graph = read(onnx.load_from_string(file.getvalue()))
    for output in graph.graph.outputs:
        if output.name not in named:  # PyTorch calls sides of different levels the same
            sides = [side if isinstance(side, int) else None for side in output.shape]
            output.shape = ir.Shape(sides)
    return Traced(graph, by_image)


@contextmanager
def _quiet() -> Iterator[None]:
    """What PyTorch says of its exporter, and of sizes that are fixed for good reasons."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
