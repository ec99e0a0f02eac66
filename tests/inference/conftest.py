import pytest
import torch
from torch import nn

from mmdet_groupconv.layers import AttentionGenerator, DGCConv2d, MaskGenerator, SelfGrouping


@pytest.fixture(scope='session')
def mix_gates():
    return _mix_gates


@torch.no_grad()
def _mix_gates(model, images):
    """Gates of a fresh network that differ by image, norms that have seen data; to eval mode.

    model: a backbone or a detector, of which only the heads' norms stay fresh.
    """
    for module in model.modules():
        if isinstance(module, MaskGenerator):
            nn.init.normal_(module.conv[3].weight, std=0.7)
            nn.init.normal_(module.conv[3].bias, std=0.5)
        elif isinstance(module, AttentionGenerator):
            nn.init.normal_(module.conv[3].weight, std=0.1)
        elif isinstance(module, DGCConv2d):
            module.set_progress(1)
            nn.init.kaiming_normal_(module.saliency.fc2.weight)
        elif isinstance(module, SelfGrouping):
            patterns = torch.rand(4, module.mask.size(1)) > 0.5
            module.mask.copy_(patterns[torch.randint(4, (module.mask.size(0),))])
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = 1.0
    model.train()
    getattr(model, 'extract_feat', model)(images)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.clamp_(min=0.01)  # rounding errors would grow without bounds
    return model


class _Always:
    """In the place of ``Fastest``: the form at a position, the last one where there are fewer.

    -1 is the last one: *in bands*, for 1x1 filters.
    """

    def __init__(self, position):
        self.position = position

    def choose(self, x, names, run, out, load=None):
        names = list(names)
        return names[min(self.position, len(names) - 1)]


@pytest.fixture(scope='session')
def take_form():
    return _take_form


def _take_form(model, position):
    """Have every layer of a compact network take the form at the same position, untimed."""
    for module in model.modules():
        if hasattr(module, 'forms'):
            module.forms = _Always(position)
    return model


@pytest.fixture
def plain_calls(monkeypatch):
    """PyTorch's own operations in the place of oneDNN's fused ones."""
    from mmdet_groupconv.inference import fused

    monkeypatch.setattr(fused, '_CONV', None)


@pytest.fixture
def all_maps_are_large(monkeypatch):
    """Every float32 map comes from a pool, and is worth filling."""
    from mmdet_groupconv.inference import pool

    monkeypatch.setattr(pool, '_LARGE', 0)
    monkeypatch.setattr(pool, '_HUGE', 0)


@pytest.fixture
def many_bundles(monkeypatch):
    """Narrow layers are parted into bundles as wide ones are."""
    from mmdet_groupconv.inference import bundling

    monkeypatch.setattr(bundling, '_TILE', 1)
    monkeypatch.setattr(bundling, '_GATHERS', (0, 2, 8))


@pytest.fixture
def convolved(monkeypatch):
    """The shapes of the weights that compact layers convolve with, one after the other.

    ``[K, C]`` where it is a product of matrices.
    """
    from mmdet_groupconv.inference import bundles, gated, unit

    shapes = []
    for module in (bundles, gated, unit):
        for name, position in (('convolve', 1), ('convolve_onto', 2), ('matmul', 1)):
            original = getattr(module, name, None)
            if original is None:
                continue

            def spy(*args, position=position, original=original):
                shapes.append(tuple(args[position].shape))
                return original(*args)

            monkeypatch.setattr(module, name, spy)
    return shapes
