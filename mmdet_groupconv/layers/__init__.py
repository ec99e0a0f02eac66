"""Grouped convolutions and their gates. Needs torch only and can be lifted out alone."""

from .conv import GroupedConv2d, SelfGatedConv2d
from .dgc import DGCConv2d, SaliencyNet
from .fixed import FixedGroupConv2d
from .flgc import FLGCConv2d
from .functional import connection, grouped_conv2d
from .gate import EqualGroups, Gate, GroupedLayer
from .gate_net import GateNet, GatePool
from .modes import evaluating
from .msgc import (
    AttentionGenerator,
    GateNets,
    MaskGenerator,
    MSGCConv2d,
    add_gate_nets,
    gate_nets,
    make_gate,
)
from .separable import SeparableConv2d
from .sgc import SelfGrouping, SGCConv2d, SGCLinear

__all__ = [
    'AttentionGenerator',
    'DGCConv2d',
    'EqualGroups',
    'FLGCConv2d',
    'FixedGroupConv2d',
    'Gate',
    'GateNet',
    'GateNets',
    'GatePool',
    'GroupedConv2d',
    'GroupedLayer',
    'MSGCConv2d',
    'MaskGenerator',
    'SGCConv2d',
    'SGCLinear',
    'SaliencyNet',
    'SelfGatedConv2d',
    'SelfGrouping',
    'SeparableConv2d',
    'add_gate_nets',
    'connection',
    'evaluating',
    'gate_nets',
    'grouped_conv2d',
    'make_gate',
]
