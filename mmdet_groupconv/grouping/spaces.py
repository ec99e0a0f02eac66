"""Which layers of a network share their channels: read from autograd's graph of one forward pass.

A *space* is one set of channels: what a layer reads is the space that the layers before it write,
through norms, activations, pooling, upsampling, depthwise convolutions and additions, which keep
channels where they are. All that is added to a residual stream is one space. An order of channels
is an order of a space.
"""

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Beginnings of the names of autograd's nodes that keep channels where they are.
_KEEPING = (
    'Relu', 'LeakyRelu', 'Hardtanh', 'Hardswish', 'Hardsigmoid', 'Silu', 'Gelu', 'Sigmoid', 'Clamp',
    'NativeBatchNorm', 'CudnnBatchNorm', 'MiopenBatchNorm', 'NativeGroupNorm', 'BatchNorm',
    'MaxPool2D', 'AvgPool2D', 'AdaptiveAvgPool2D', 'Mean', 'Upsample',
    'Add', 'Sub', 'Mul', 'Div', 'ToCopy', 'Clone', 'Alias',
)  # fmt: skip


class Ends(NamedTuple):
    """The spaces, by number, that a layer reads and writes; None where it reads no known one."""

    reads: int | None
    writes: int


class Spaces(NamedTuple):
    """The spaces of a network.

    layers: by name, the spaces at a layer's ends; depthwise convolutions aside. sizes: channels of
    each space. added: spaces that several layers write, such as residual streams.
    """

    layers: dict[str, Ends]
    sizes: dict[int, int]
    added: set[int]


def find_spaces(network: nn.Module, forward: Callable[[], object]) -> Spaces:
    """The spaces at the ends of a network's convolutions and fully connected layers.

    forward: runs `network` once, dense, on an image; nothing in the network changes.
    """
    names = {module: name for name, module in network.named_modules() if _is_layer(module)}
    with _graph(network, names) as calls:
        forward()
    writers = {call.output: call for call in calls}
    groups = _Union()
    for call in calls:
        for writer in _sources(call.input, writers):
            groups.join((call.name, 'reads'), (writer.name, 'writes'))
        if call.depthwise:
            groups.join((call.name, 'reads'), (call.name, 'writes'))
    return _number(calls, groups, {call.name for call in calls if call.depthwise})


class _Call(NamedTuple):
    name: str
    input: object
    output: object
    in_channels: int
    out_channels: int
    depthwise: bool


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


@contextmanager
def _graph(network: nn.Module, names: dict[nn.Module, str]):
    """Hooks that note each call of a layer, with autograd's nodes at both ends."""
    calls: list[_Call] = []
    frozen = [p for p in network.parameters() if not p.requires_grad and p.is_floating_point()]

    def note(layer: nn.Module, args: tuple, output: Tensor) -> None:
        linear = isinstance(layer, nn.Linear)
        channels = layer.weight.shape[1] if linear else layer.in_channels
        depthwise = not linear and layer.groups == layer.in_channels == layer.out_channels
        sizes = channels, len(layer.weight), depthwise
        calls.append(_Call(names[layer], args[0].grad_fn, output.grad_fn, *sizes))

    handles = [layer.register_forward_hook(note) for layer in names]
    try:
        for parameter in frozen:  # else their part leaves no graph
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield calls
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for handle in handles:
            handle.remove()


def _sources(node: object, writers: dict[object, _Call]) -> Iterable[_Call]:
    """The calls whose outputs reach `node` with their channels in place."""
    seen, pending = set(), [node]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in writers:
            yield writers[node]
        elif node.name().startswith(_KEEPING):
            pending.extend(before for before, _ in node.next_functions)


def _number(calls: list[_Call], groups: '_Union', depthwise: set[str]) -> Spaces:
    numbers: dict[object, int] = {}
    layers, sizes, written = {}, {}, {}
    known = {end for end in groups.parents if end[1] == 'reads'}
    for call in calls:
        ends = []
        for role, channels in (('reads', call.in_channels), ('writes', call.out_channels)):
            end = (call.name, role)
            if role == 'reads' and end not in known:
                ends.append(None)
                continue
            number = numbers.setdefault(groups.find(end), len(numbers))
            sizes[number] = channels
            ends.append(number)
        if call.name not in depthwise:
            layers[call.name] = Ends(*ends)
            written.setdefault(ends[1], set()).add(call.name)
    return Spaces(layers, sizes, {space for space, by in written.items() if len(by) > 1})


class _Union:
    """Sets of ends that are one space."""

    def __init__(self) -> None:
        self.parents: dict[object, object] = {}

    def find(self, end: object) -> object:
        self.parents.setdefault(end, end)
        while self.parents[end] != end:
            end = self.parents[end]
        return end

    def join(self, one: object, other: object) -> None:
        one, other = self.find(one), self.find(other)
        self.parents[one] = other
