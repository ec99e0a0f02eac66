import pytest
import torch
from torch import nn

from mmdet_groupconv.layers import AttentionGenerator, DGCConv2d, MaskGenerator, SelfGrouping


@pytest.fixture
def mix_gates():
    return _mix_gates


@torch.no_grad()
def _mix_gates(model, images):
    """Gates of a fresh network that differ by image, norms that have seen data; to eval mode."""
    for module in model.modules():
        if isinstance(module, MaskGenerator):
            nn.init.normal_(module.conv[3].weight, std=0.7)
            nn.init.normal_(module.conv[3].bias, std=0.5)
        elif isinstance(module, AttentionGenerator):
            nn.init.normal_(module.conv[3].weight, std=0.1)
        elif isinstance(module, DGCConv2d):
            module.set_progress(1)
        elif isinstance(module, SelfGrouping):
            patterns = torch.rand(4, module.mask.size(1)) > 0.5
            module.mask.copy_(patterns[torch.randint(4, (module.mask.size(0),))])
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = 1.0
    model.train()
    model(images)
    model.eval()
    return model


@pytest.fixture
def plain_calls(monkeypatch):
    """PyTorch's own operations in the place of oneDNN's fused ones."""
    from mmdet_groupconv.inference import fused

    monkeypatch.setattr(fused, '_CONV', None)
