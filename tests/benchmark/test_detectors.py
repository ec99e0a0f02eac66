"""Detectors in another runtime find the same boxes."""

from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config

from mmdet_groupconv.benchmark import AbsentError
from mmdet_groupconv.benchmark.dense import in_onnxruntime
from mmdet_groupconv.benchmark.detectors import in_runtime
from mmdet_groupconv.engine.launch import build_model

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SIZE = 64, 96


def detector(name):
    cfg = Config.fromfile(CONFIGS / name.replace('-', '_') / f'{name}_r18_fpn_1x_coco.py')
    cfg.model.backbone.update(base_channels=8, init_cfg=None)
    cfg.model.neck.update(in_channels=[8, 16, 32, 64])
    test_cfg = cfg.model.test_cfg
    test_cfg.get('rcnn', test_cfg).score_thr = 0.0
    torch.manual_seed(0)
    return build_model(cfg).eval()


def images():
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def boxes(model):
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), SIZE)
    sample = DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0)))
    with torch.no_grad():
        (found,) = model(images(), [sample], mode='predict')
    return found.pred_instances


def same_network(model, x):
    """Stands for a runtime: flat lists of tensors."""
    assert not model.training
    return lambda x: list(model(x))


@pytest.mark.parametrize('name', ['retinanet', 'faster-rcnn'])
@pytest.mark.parametrize('runtime', [same_network, in_onnxruntime])
def test_boxes_are_the_same(name, runtime):
    if runtime is in_onnxruntime:
        pytest.importorskip('onnxruntime')
    model = detector(name)
    expected, found = boxes(model), boxes(in_runtime(model, runtime, images()))
    assert len(expected) > 0
    assert found.labels.tolist() == expected.labels.tolist()
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=1e-3, atol=1e-3)
    assert not any(module.training for module in model.modules())  # exporters switch modes


def test_other_detectors_are_named():
    class Other(type(detector('retinanet'))):
        def predict(self, *args, **kwargs):
            raise NotImplementedError

    model = detector('retinanet')
    model.__class__ = Other
    with pytest.raises(AbsentError, match='Other is no plain detector'):
        in_runtime(model, same_network, images())
