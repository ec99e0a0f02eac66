"""How long a trained network takes: eager, compact, and its dense host, in turn."""

import copy

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from ..benchmark import interleaved
from ..inference import compact
from .dense_host import dense_model_cfg


def latencies(model: nn.Module, cfg: Config, batch: dict, rounds: int = 5) -> dict[str, float]:
    """Milliseconds of one batch, medians of interleaved calls, preprocessing left out.

    model: in evaluation mode, on the CPU or a GPU. batch: as the config's data loader yields it.
    The dense host has random weights: its time doesn't depend on them, but for the number of boxes
    that it finds.
    """
    device = next(model.parameters()).device
    dense = MODELS.build(dense_model_cfg(copy.deepcopy(cfg.model))).to(device).eval()
    forms = {'dense eager': dense, 'eager': model, 'compact': compact(model)}
    data = model.data_preprocessor(copy.deepcopy(batch), training=False)

    def run(form: nn.Module):
        with torch.no_grad():
            return form(data['inputs'], copy.deepcopy(data['data_samples']), mode='predict')

    cases = {name: lambda form=form: run(form) for name, form in forms.items()}
    timings = interleaved(cases, rounds, device)
    return {name: 1000 * timing.median for name, timing in timings.items()}
