"""Random networks whose gates are as a trained network's would be: so open, and by image."""

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..engine.self_grouping import self_group_model
from ..layers import (
    AttentionGenerator,
    DGCConv2d,
    Gate,
    GroupedLayer,
    MaskGenerator,
    SelfGrouping,
)
from ..macs import count_macs

_SETTLING = 4, 3, 256, 256
_NEAR = 0.005
_PREDICTORS = ('retina_cls', 'retina_reg', 'rpn_cls', 'rpn_reg', 'fc_cls', 'fc_reg')


def prepare(model: nn.Module, cfg: Config, seed: int) -> None:
    """Give a fresh detector weights to measure with, in place; to eval mode.

    Gate nets are random, with logits of about unit variance; DGC's schedule is at its end; SGC is
    pruned as far as the config does. Norms have seen random images, as 50 layers of a fresh network
    would else overflow. What predicts is next to zero: random scores would have one network sort
    millions of boxes and another none.
    """
    torch.manual_seed(seed)
    for name, module in model.named_modules():
        # Of a separable layer the second convolution predicts.
        if name.removesuffix('.pointwise').endswith(_PREDICTORS) and hasattr(module, 'weight'):
            module.weight.data.mul_(1e-4)
        if isinstance(module, MaskGenerator | AttentionGenerator):
            spread = module.conv[3].in_channels ** -0.5
            nn.init.normal_(module.conv[3].weight, std=spread)
            if isinstance(module, MaskGenerator):
                nn.init.normal_(module.conv[3].bias)
        elif isinstance(module, DGCConv2d):
            module.set_progress(1)
    steps = [hook.get('steps') for hook in cfg.get('custom_hooks') or [] if hook.get('steps')]
    if steps and any(isinstance(module, SelfGrouping) for module in model.modules()):
        last = list(steps[0].values())[-1]
        self_group_model(model, last[-1] if isinstance(last, list | tuple) else last)
    _settle_norms(model)


def set_mac_ratio(model: nn.Module, images: Tensor, ratio: float) -> float:
    """Open or close MSGC's gates until the MAC ratio on `images` is `ratio`; returns what it is.

    All gates' biases get the same offset, so that they still differ by image and channel.

    model: a backbone or a whole detector. images: ``[B, 3, H, W]``.

    Raises ValueError where the model has no such gates or can't come that far.
    """
    generators = [module for module in model.modules() if isinstance(module, MaskGenerator)]
    if not generators:
        raise ValueError(f'{type(model).__name__} has no MSGC gates whose MAC ratio could be set')
    biases = [generator.conv[3].bias for generator in generators]
    drawn = [bias.detach().clone() for bias in biases]
    low, high, found = -8.0, 8.0, float('nan')
    for _ in range(16):
        middle = (low + high) / 2
        for bias, own in zip(biases, drawn, strict=True):
            bias.data.copy_(own + middle)
        found = count_macs(model, tuple(images.shape[2:]), images).ratio
        if abs(found - ratio) <= _NEAR:
            return found
        low, high = (middle, high) if found < ratio else (low, middle)
    raise ValueError(f'MAC ratio {ratio} out of reach, {found:.3f} is the nearest')


@torch.no_grad()
def varying_share(model: nn.Module, size: tuple[int, int], images: int = 4) -> float | None:
    """Of what gates decide by the image, the share that differs between random images.

    model: a backbone in eval mode. size: of the images. None where no gate depends on the image.
    """
    seen: dict[nn.Module, list[Tensor]] = {}

    def on_gate(layer: nn.Module, gate: Gate, x: Tensor, y: Tensor) -> None:
        seen.setdefault(layer, []).append(gate.mask[0].bool())

    dynamic = [m for m in model.modules() if isinstance(m, GroupedLayer) and not m.static_gate]
    handles = [layer.register_gate_hook(on_gate) for layer in dynamic]
    like = next(model.parameters())
    for _ in range(images if dynamic else 0):
        model(torch.randn(1, 3, *size, device=like.device))
    for handle in handles:
        handle.remove()
    if not seen:
        return None
    masks = [torch.stack(of_layer) for of_layer in seen.values()]  # [images, G, C]
    differ = [(of_layer.any(dim=0) & ~of_layer.all(dim=0)).flatten() for of_layer in masks]
    return float(torch.cat(differ).float().mean())


@torch.no_grad()
def _settle_norms(model: nn.Module) -> None:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)  # a residual branch that starts at 0 is none
        norm.momentum = 1.0
        norm.train()
    model.backbone(torch.randn(_SETTLING, device=norms[0].weight.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
