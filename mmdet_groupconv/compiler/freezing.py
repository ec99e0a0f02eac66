"""Gates that are decided once, from a calibration set, instead of for every image."""

from collections.abc import Iterable

import torch
from mmengine.model import BaseModel
from rich.progress import track
from torch import Tensor, nn

from ..layers import AttentionGenerator, Gate, GroupedConv2d, SelfGatedConv2d


class _Sums:
    """Of one layer, over the images (and the feature levels that share it)."""

    def __init__(self) -> None:
        self.images, self.mask, self.strength, self.assign = 0, 0.0, None, None

    def add(self, layer: nn.Module, gate: Gate, x: Tensor, y: Tensor) -> None:
        self.images += gate.mask.size(0)
        self.mask = self.mask + gate.mask.detach().double().sum(dim=0)
        if gate.strength is not None:
            read = (gate.value.detach().double()).sum(dim=0)
            self.strength = read if self.strength is None else self.strength + read
        self.assign = gate.assign

    def frozen(self, keep: float) -> Gate:
        mask = self.mask / self.images > keep
        strength = None
        if self.strength is not None:  # the mean where it was read
            strength = (self.strength / self.mask.clamp(min=1)).float()[None]
        return Gate(mask.float()[None], strength, self.assign)


def freeze_gates(model: nn.Module, batches: Iterable, keep: float) -> None:
    """Give every layer with gates by image, in place, the fixed gate that its images had most.

    Layers keep it as ``frozen``. Arguments and errors: see :func:`calibrated_gates`.
    """
    for layer, gate in calibrated_gates(model, batches, keep).items():
        layer.frozen = gate


def freeze_held_gates(model: nn.Module) -> None:
    """The same, without calibration, for layers whose nets give one mask for every image anyway.

    Nothing changes by it; where attention weighs channels too, that still comes with the image.
    """
    for host in model.modules():
        if any(isinstance(net, AttentionGenerator) for net in host.children()):
            continue
        for name, generator in getattr(host, 'mask_generators', dict)().items():
            layer, mask = host.get_submodule(name), generator.held
            if mask is None or layer.frozen is not None:
                continue
            if isinstance(layer, SelfGatedConv2d):  # which knows its groups
                layer.frozen = layer.decide(mask.new_zeros(1, layer.in_channels, 1, 1))
            else:
                layer.frozen = Gate(mask[None])


def calibrated_gates(model: nn.Module, batches: Iterable, keep: float) -> dict[nn.Module, Gate]:
    """For each layer with gates by image, the one that serves all images.

    A head reads the channels that it read on more than a share of `keep` of the images, with the
    mean strength it read them with.

    batches: what ``model.test_step`` takes, for a detector or classifier; ``[B, 3, H, W]`` for a
    backbone.

    Raises ValueError for a share outside of 0 ... 1, a model without such gates, no batches.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f'keep={keep}, expected a share from 0 to 1')
    layers = [m for m in model.modules() if isinstance(m, GroupedConv2d) and not m.static_gate]
    if not layers:
        raise ValueError(f'{type(model).__name__} has no gates by image to freeze')
    sums = {layer: _Sums() for layer in layers}
    handles = [layer.register_gate_hook(sums[layer].add) for layer in layers]
    run = model.test_step if isinstance(model, BaseModel) else model
    try:
        with torch.no_grad():
            for batch in track(batches, 'calibrating gates'):
                run(batch)
    finally:
        for handle in handles:
            handle.remove()
    if not all(found.images for found in sums.values()):
        raise ValueError('no calibration batch reached the gated layers')
    return {layer: found.frozen(keep) for layer, found in sums.items()}
