"""What layers read while a network runs on images."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def watch_inputs(
    modules: dict[str, nn.Module],
    forwards: Iterable[Callable[[], object]],
    note: Callable[[str, Tensor], None],
) -> int:
    """Have every input of `modules` noted, by name, without gradients; returns how many ran.

    forwards: each runs the network on a batch of images.
    """
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0].detach()))
        for name, module in modules.items()
    ]
    ran = 0
    try:
        with torch.no_grad():
            for run in forwards:
                run()
                ran += 1
    finally:
        for handle in handles:
            handle.remove()
    return ran
