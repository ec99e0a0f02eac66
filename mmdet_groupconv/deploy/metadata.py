"""What a file says of itself."""

import json
from collections.abc import Sequence

from mmdet.registry import DATASETS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config


def metadata(cfg: Config, part: str) -> dict[str, str]:
    """What is to be done to images before a part, and of a whole detector what comes out of it.

    part: see :func:`~mmdet_groupconv.deploy.export_onnx`. Raises ValueError for a detector whose
    config doesn't say how its test images are resized.
    """
    settings = cfg.model.get('data_preprocessor') or {}
    names = ('mean', 'std', 'bgr_to_rgb', 'pad_size_divisor')
    found = {name: str(settings[name]) for name in names if name in settings}
    if part != 'detector':
        return found
    resize = next((s for s in get_test_pipeline_cfg(cfg) if s['type'].endswith('Resize')), None)
    if resize is None or 'scale' not in resize:
        raise ValueError(
            'test_dataloader.dataset.pipeline has no Resize with a scale, expected one'
        )
    return dict(
        found,
        classes=json.dumps(list(_classes(cfg))),
        scale=json.dumps(list(resize['scale'])),
        keep_ratio=json.dumps(bool(resize.get('keep_ratio', False))),
    )


def _classes(cfg: Config) -> Sequence[str]:
    dataset = cfg.test_dataloader.dataset
    own = dataset.get('metainfo') or {}
    return own.get('classes') or DATASETS.get(dataset.type).METAINFO['classes']
