"""MMDetection backbones with learned and dynamic grouped convolutions.

Importing it makes the registered names known to MMDetection, and mmcv's missing ops available.
"""

from .compat import ensure_mmcv_ops

__version__ = '0.1.0'

ensure_mmcv_ops()

from .conv_cfg import register_layers  # noqa: E402  (after the ops: mmdet.models needs them)

register_layers()

from . import backbones, classification, datasets, engine, heads, registry  # noqa: E402, F401
