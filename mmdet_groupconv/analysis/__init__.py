"""What a network costs and what was grouped."""

from ..macs import MacReport, count_macs
from .gate_pictures_hook import GatePicturesHook
from .image_macs import count_macs_of_images
from .mac_table import print_macs

__all__ = ['GatePicturesHook', 'MacReport', 'count_macs', 'count_macs_of_images', 'print_macs']
