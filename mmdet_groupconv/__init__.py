"""MMDetection backbones with learned and dynamic grouped convolutions.

Importing it makes the registered names known to MMDetection, mmcv's missing ops available, and
MMEngine's own checkpoints readable without running code.
"""

from .compat import allow_log_buffers, ensure_mmcv_ops

__version__ = '0.2.0'

ensure_mmcv_ops()
allow_log_buffers()

from .conv_cfg import register_layers  # noqa: E402  (after the ops: mmdet.models needs them)

register_layers()

from . import analysis, backbones, classification, datasets, engine, heads, registry  # noqa: E402, F401
