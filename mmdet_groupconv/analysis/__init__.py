"""What a network costs and what was grouped."""

from .images import count_macs_of_images
from .mac_table import print_macs
from .macs import MacReport, count_macs

__all__ = ['MacReport', 'count_macs', 'count_macs_of_images', 'print_macs']
