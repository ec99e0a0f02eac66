"""How long a trained network takes: eager, compact, and its dense host, in turn."""

import copy
import time

import torch
from mmengine.config import Config
from torch import nn

from ..benchmark import interleaved
from ..compiler import compact
from .dense_host import dense_host

_SECONDS = 10.0  # that all rounds take, about
_ROUNDS = 5, 50


def latencies(model: nn.Module, cfg: Config, batch: dict) -> dict[str, float]:
    """Milliseconds of one batch, medians of interleaved calls, preprocessing left out.

    model: in evaluation mode, on the CPU or a GPU. batch: as the config's data loader yields it.
    """
    forms = {'dense eager': dense_host(model, cfg.model), 'eager': model, 'compact': compact(model)}
    data = model.data_preprocessor(copy.deepcopy(batch), training=False)

    def run(form: nn.Module):
        with torch.no_grad():
            return form(data['inputs'], copy.deepcopy(data['data_samples']), mode='predict')

    start = time.perf_counter()
    for form in forms.values():
        run(form)
    rounds = int(_SECONDS / (time.perf_counter() - start))
    least, most = _ROUNDS
    cases = {name: lambda form=form: run(form) for name, form in forms.items()}
    device = next(model.parameters()).device
    timings = interleaved(cases, min(max(rounds, least), most), device)
    return {name: 1000 * timing.median for name, timing in timings.items()}
