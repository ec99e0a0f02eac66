"""A file that detects gives the boxes of MMDetection's own prediction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

from mmdet_groupconv.deploy import export, export_onnx
from mmdet_groupconv.deploy.detecting import Detecting
from mmdet_groupconv.deploy.runtime import Runtime, session

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
GROUPED = {
    'sgc': dict(type='SGCConv2d', groups=4),
    'msgc': dict(type='MSGCConv2d', heads=2),
}


def small(detector, method):
    """Boxes of every class, from weights that were drawn."""
    torch.manual_seed(0)
    conv_cfg = GROUPED[method]
    name = detector.replace('-', '_')
    cfg = Config.fromfile(CONFIGS / name / f'{detector}_{method}-r18_fpn_1x_coco.py').model
    cfg.backbone.update(base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16, conv_cfg=conv_cfg)
    if detector == 'retinanet':
        cfg.bbox_head.update(type='GroupedRetinaHead', pred_cfg=conv_cfg, conv_cfg=conv_cfg)
        cfg.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=3)
    else:
        cfg.rpn_head.update(type='GroupedRPNHead', conv_cfg=conv_cfg)
        cfg.rpn_head.update(in_channels=16, feat_channels=16)
        cfg.roi_head.bbox_roi_extractor.out_channels = 16
        linear = dict(type='SGCLinear', groups=4)
        cfg.roi_head.bbox_head.update(type='GroupedShared2FCBBoxHead', linear_cfg=linear)
        cfg.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    model = MODELS.build(cfg)
    for name, module in model.named_modules():
        if name.endswith(('retina_cls', 'retina_reg', 'rpn_cls', 'rpn_reg', 'fc_cls', 'fc_reg')):
            torch.nn.init.normal_(module.weight, std=0.3)  # boxes that differ
    return model


HEADS = {
    'atss': 'atss/atss_r50_fpn_1x_coco.py',
    'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'fcos, centerness on boxes': (
        'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py'
    ),
    'gfl': 'gfl/gfl_r50_fpn_1x_coco.py',
    'cascade': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'mask': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',  # its boxes
}


def another(name):
    """Another of MMDetection's detectors, small, its layers in clusters."""
    torch.manual_seed(0)
    cfg = get_config(f'mmdet::{HEADS[name]}').model
    cfg.backbone = dict(type='SGCResNet', depth=18, base_channels=8, groups=4)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16, conv_cfg=GROUPED['sgc'])
    if 'roi_head' in cfg:
        cfg.rpn_head.update(in_channels=16, feat_channels=16)
        cfg.roi_head.bbox_roi_extractor.out_channels = 16
        heads = cfg.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.update(in_channels=16, fc_out_channels=32, num_classes=3)
        if 'mask_head' in cfg.roi_head:
            cfg.roi_head.mask_roi_extractor.out_channels = 16
            cfg.roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_classes=3)
    else:
        cfg.bbox_head.update(in_channels=16, feat_channels=64, stacked_convs=1, num_classes=3)
        cfg.bbox_head.conv_cfg = GROUPED['sgc']
    model = MODELS.build(cfg)
    for name, module in model.named_modules():
        if name.endswith(('cls', 'reg', 'centerness')) and hasattr(module, 'weight'):
            torch.nn.init.normal_(module.weight, std=0.3)  # boxes that differ
    return model


ALL = [(detector, method) for detector in ('retinanet', 'faster-rcnn') for method in GROUPED]
ALL += [(name,) for name in HEADS]


@pytest.fixture(params=ALL, ids='-'.join)
def detector(request, mix_gates):
    model = small(*request.param) if len(request.param) > 1 else another(*request.param)
    return mix_gates(model, torch.randn(2, 3, 64, 96))


def pixels(height, width):
    seeded = np.random.default_rng(0)
    return torch.from_numpy(seeded.integers(0, 256, (1, 3, height, width), np.uint8))


@torch.no_grad()
def by_mmdetection(model, image):
    size = tuple(image.shape[2:])
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
    data = dict(inputs=[image[0].flip(0)], data_samples=[sample])  # which reads BGR
    (found,) = model(**model.data_preprocessor(data), mode='predict')
    boxes = found.pred_instances
    return boxes.bboxes, boxes.scores, boxes.labels


def test_the_network_gives_mmdetection_s_boxes(detector):
    for size in ((64, 96), (75, 50)):
        expected = by_mmdetection(detector, pixels(*size))
        assert len(expected[0]) > 5
        with torch.no_grad():
            found = Detecting(detector).eval()(pixels(*size))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


@pytest.fixture
def untimed(monkeypatch):
    from mmdet_groupconv.deploy import plan

    monkeypatch.setattr(plan, 'race', lambda models, *_: [1.0] * (len(models) - 1) + [0.5])
    monkeypatch.setattr(export, 'race', lambda *_: [0.5, 1.0])


SLOW = pytest.param(ALL[1], marks=pytest.mark.slow)  # gates by image of the other detector do


@pytest.mark.parametrize('detector', [ALL[0], SLOW, *ALL[2:]], ids='-'.join, indirect=True)
def test_the_file_gives_them_for_images_of_any_size(detector, tmp_path, untimed):
    path = tmp_path / 'detector.onnx'
    report = export_onnx(detector, path, (96, 128))
    assert report.difference <= 1e-3
    assert list(report.outputs) == ['boxes', 'scores', 'labels']
    for size in ((64, 96), (101, 70)):
        run = session(path, 1).run(None, {'images': pixels(*size).numpy()})
        expected = [y.numpy() for y in by_mmdetection(detector, pixels(*size))]
        assert max(map(np.max, Detecting(detector).differences(expected, run))) <= 1e-3


@pytest.mark.parametrize('known', [True, False])
def test_a_detector_in_bf16_is_checked_on_images_where_some_are_known(
    tmp_path, untimed, monkeypatch, known
):
    pytest.importorskip('openvino')
    images = [pixels(64, 64 + 8 * n) for n in range(9 if known else 0)]
    seen = []
    monkeypatch.setattr(export, 'check_runtime', lambda *given: seen.extend(given[-2]))
    where = tmp_path / 'detector.onnx', (64, 64), Runtime('openvino', 'bf16', 1)
    export_onnx(small('retinanet', 'sgc').eval(), *where, images=images)
    assert [tuple(image.shape[2:]) for image in seen] == (
        [(64, 64 + 8 * n) for n in range(8)] if known else [(64, 64)]
    )


def test_an_image_without_objects_has_no_boxes(tmp_path, untimed):
    detector, path = small('retinanet', 'sgc').eval(), tmp_path / 'detector.onnx'
    torch.nn.init.constant_(detector.bbox_head.retina_cls.bias, -99.0)
    export_onnx(detector, path, (64, 64))
    boxes, scores, labels = session(path, 1).run(None, {'images': pixels(64, 64).numpy()})
    assert boxes.shape == (0, 4)
    assert scores.shape == labels.shape == (0,)


BOXES = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32)
SCORES, LABELS = np.array([0.9, 0.5], np.float32), np.array([0, 1])


@pytest.mark.parametrize(
    ('other', 'difference'),
    [
        ((BOXES, SCORES, LABELS), 0),
        ((BOXES[::-1], SCORES[::-1], LABELS[::-1]), 0),  # the order doesn't matter
        ((BOXES, SCORES - np.float32(0.1), LABELS), 0.1),
        ((BOXES + np.float32([0, 0, 1, 0]), SCORES, LABELS), 1 / 11),
        ((BOXES, SCORES, LABELS[::-1]), 0.39),  # another class is another box
        ((BOXES[:1], SCORES[:1], LABELS[:1]), 0),  # the last that was let through
        ((BOXES[1:], SCORES[1:], LABELS[1:]), 0.39),
        ((BOXES[:0], SCORES[:0], LABELS[:0]), 0.9),
    ],
)
def test_differences_between_boxes(other, difference):
    detecting = Detecting(small('retinanet', 'sgc'))
    other = [np.ascontiguousarray(part) for part in other]
    found = detecting.differences([BOXES, SCORES, LABELS], other)
    assert max(map(np.max, found)) == pytest.approx(difference)


class OtherHead(torch.nn.Module):
    pass


def soft(detector):
    detector.bbox_head.test_cfg.nms.type = 'soft_nms'


def other_head(detector):
    detector.bbox_head = OtherHead()


def other_stage(detector):
    detector.roi_head = OtherHead()


@pytest.mark.parametrize(
    ('name', 'change', 'complaint'),
    [
        ('retinanet', soft, "type 'soft_nms', expected 'nms'"),
        ('retinanet', other_head, 'head OtherHead is not known, expected a RetinaHead'),
        ('faster-rcnn', other_stage, 'roi_head OtherHead is not known, expected a StandardRoIHead'),
    ],
)
def test_what_is_not_known_is_named(name, change, complaint):
    detector = small(name, 'sgc')
    change(detector)
    with pytest.raises(ValueError, match=complaint):
        Detecting(detector)
