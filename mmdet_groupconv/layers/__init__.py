"""Grouped convolutions and their gates. Needs torch only and can be lifted out alone."""

from .conv import GroupedConv2d
from .functional import connection, grouped_conv2d
from .gate import Gate
from .macs import MacMeter, Macs
from .msgc import AttentionGenerator, GateNet, GatePool, MaskGenerator, add_gate_nets, make_gate

__all__ = [
    'AttentionGenerator',
    'Gate',
    'GateNet',
    'GatePool',
    'GroupedConv2d',
    'MacMeter',
    'Macs',
    'MaskGenerator',
    'add_gate_nets',
    'connection',
    'grouped_conv2d',
    'make_gate',
]
