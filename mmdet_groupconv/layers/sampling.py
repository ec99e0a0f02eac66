"""Hard 0/1 gates that can be trained."""

import torch
from torch import Tensor

TEMPERATURE = 2 / 3


def sample_gate(logits: Tensor, training: bool, noise: float = 1.0) -> Tensor:
    """Gumbel-sigmoid with straight-through gradients (MSGC, section 3.3).

    Training: ``soft = sigmoid((logits + noise * logistic) / TEMPERATURE)``, forward value
    ``soft >= 0.5``, gradient of ``soft``. noise: its amplitude, 1 as published; with 0 the forward
    value is evaluation's, and nothing is drawn. Evaluation: ``logits >= 0``, without noise or
    gradient. Float32 at least: half precision can't hold the noise's tails. Any shape in, the same
    out.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if not training:
        return (logits >= 0).to(logits.dtype)
    if noise:
        tiny = torch.finfo(logits.dtype).eps
        uniform = torch.rand_like(logits).clamp_(tiny, 1 - tiny)
        logits = logits + noise * torch.logit(uniform)
    soft = torch.sigmoid(logits / TEMPERATURE)
    return (soft >= 0.5).to(soft.dtype) + (soft - soft.detach())
