"""Mixed precision on CPUs, which MMEngine's ``AmpOptimWrapper`` refuses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.optim import OptimWrapper
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward passes run under CPU autocast in bfloat16.

    Weights, their gradients and the optimizer's state stay in float32. The range of bfloat16 is
    float32's, so no loss is scaled. Faster where the CPU computes in bfloat16 (``avx512_bf16`` or
    ``amx_bf16`` among its flags), slower elsewhere.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """A context for the forward pass of ``model``."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
