"""Running a detector for its MACs: up to the raw outputs of its heads, without post-processing."""

from collections.abc import Iterator

from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.analysis import FlopAnalyzer
from torch import Tensor, nn

from .meter import METERED

# What the papers' convention leaves out, or counts by its own rules.
_NOT_COUNTED = (
    'aten::batch_norm', 'aten::group_norm', 'aten::layer_norm', 'aten::instance_norm',
    'aten::upsample_nearest2d', 'aten::upsample_bilinear2d', 'aten::adaptive_avg_pool2d',
    'aten::grid_sampler',
)  # fmt: skip


def forward_detector(detector: BaseDetector, images: Tensor) -> None:
    """Run it. images: ``[B, 3, H, W]``, normalised."""
    detector(images, _samples(images), mode='tensor')


def unmetered_macs(detector: BaseDetector, images: Tensor) -> dict[str, float]:
    """Multiply-accumulates for one image that no layer known to ``MacMeter`` does, by part.

    MMEngine's analyser counts them, of attention or deformable convolutions, say.
    """
    metered = list(_outermost_metered(detector))
    known = {part for name in metered for part in detector.get_submodule(name).modules()}
    if not any(m._parameters for m in detector.modules() if m not in known):
        return {}
    analyser = FlopAnalyzer(_Raw(detector), (images,))
    analyser.set_op_handle(**dict.fromkeys(_NOT_COUNTED, lambda *_: 0))
    analyser.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_module = analyser.tracer_warnings('none').by_module()
    rest = {}
    for part, _ in detector.named_children():
        counted = sum(by_module[f'detector.{n}'] for n in metered if n.split('.')[0] == part)
        rest[f'{part}.other'] = (by_module[f'detector.{part}'] - counted) / len(images)
    return {name: macs for name, macs in rest.items() if macs}


def _outermost_metered(module: nn.Module, prefix: str = '') -> Iterator[str]:
    for name, child in module.named_children():
        if isinstance(child, METERED):
            yield prefix + name
        else:
            yield from _outermost_metered(child, f'{prefix}{name}.')


class _Raw(nn.Module):
    def __init__(self, detector: BaseDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor):
        return self.detector(images, _samples(images), mode='tensor')


def _samples(images: Tensor) -> list[DetDataSample]:
    size = tuple(images.shape[-2:])
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    return [DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0))) for _ in images]
