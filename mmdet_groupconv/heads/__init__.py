"""MMDetection's heads, with a way to group the layers that they hard-code."""

from .grouped_heads import GroupedRetinaHead, GroupedRPNHead, GroupedShared2FCBBoxHead

__all__ = ['GroupedRPNHead', 'GroupedRetinaHead', 'GroupedShared2FCBBoxHead']
