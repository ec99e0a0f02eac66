"""MMDetection backbones with learned and dynamic grouped convolutions.

Importing it makes the registered names known to MMDetection, and mmcv's missing ops available.
"""

from .compat import ensure_mmcv_ops

__version__ = '0.1.0'

ensure_mmcv_ops()

from . import backbones, datasets, engine  # noqa: E402, F401  (after the ops: mmdet.models needs them)
