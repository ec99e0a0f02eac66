import json
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from torch import nn

from mmdet_groupconv.analysis import count_macs, print_macs
from mmdet_groupconv.backbones import FLGCResNet, MSGCResNet
from mmdet_groupconv.classification import ImageClassifier
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.macs import MacMeter, mean_report
from mmdet_groupconv.macs.detectors import _Raw, unmetered_macs

MODEL_FILES = Path(__file__).resolve().parents[2] / 'configs/_base_/models'


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    return MSGCResNet(18, base_channels=16).eval()


def test_open_gates_without_images(backbone):
    report = count_macs(backbone, (64, 96))
    assert report.masked == report.original - report.always_on
    assert report.unread == 0
    assert report.macs == report.original + report.gate_nets


def test_images_close_gates(backbone):
    torch.manual_seed(0)
    for module in backbone.modules():
        if hasattr(module, 'heads'):
            nn.init.normal_(module.conv[3].bias)
    report = count_macs(backbone, (64, 64), torch.randn(2, 3, 64, 64))
    assert 0.3 < report.ratio < 0.9
    # Every layer's row already excludes what the totals subtract.
    assert sum(row.macs for row in report.layers) == pytest.approx(report.macs)
    assert sum(row.original for row in report.layers) == report.original


def test_images_of_another_size_are_refused(backbone):
    with pytest.raises(ValueError, match=r'size \(32, 64\), expected input_size=\(64, 64\)'):
        count_macs(backbone, (64, 64), torch.zeros(1, 3, 32, 64))


@pytest.mark.parametrize('training', [True, False])
def test_mode_is_left_as_it_was(backbone, training):
    backbone.train(training)
    backbone.layer1.eval()
    count_macs(backbone, (32, 32))
    assert backbone.training is training
    assert backbone.layer1.training is False
    assert backbone.layer2.training is training


def test_classifier_counts_pooling_and_linear_layer(backbone):
    # 224 / 32 = 7: pooling 7*7 a channel, the linear layer 10 a channel; feat_dim = 16 * 8 = 128.
    whole = count_macs(ImageClassifier(backbone, 10), (224, 224))
    alone = count_macs(backbone, (224, 224))
    assert whole.original - alone.original == 128 * (7 * 7 + 10)


def test_mean_report_averages_every_number(backbone):
    small, large = count_macs(backbone, (32, 32)), count_macs(backbone, (64, 64))
    mean = mean_report([small, large])
    assert mean.original == (small.original + large.original) / 2
    assert mean.layers[0].macs == (small.layers[0].macs + large.layers[0].macs) / 2
    assert mean.layers[0].density is None


def test_report_survives_json(backbone):
    report = count_macs(backbone, (32, 32))
    read = json.loads(json.dumps(report.to_dict()))
    assert read['macs'] == report.macs
    assert len(read['layers']) == len(report.layers)


def test_table_names_layers_ratio_and_target(backbone, capsys):
    print_macs(count_macs(backbone, (32, 32)), 'a title', {'backbone': 0.5})
    printed = capsys.readouterr().out
    for text in ('a title', 'layer1.0.conv1', 'ratio reached', 'ratio targeted', '0.5000'):
        assert text in printed


def detector(name, **backbone):
    """A dense R18 or MobileNetV2 detector of ours, its backbone replaced where asked."""
    cfg = Config.fromfile(MODEL_FILES / f'{name}.py')
    cfg.model.backbone.update(backbone)
    torch.manual_seed(0)
    return build_model(cfg)


def analysed(model, size):
    """MMEngine's own counts by part, norms and interpolation left out."""
    analyser = FlopAnalyzer(_Raw(model.eval()), (torch.zeros(1, 3, *size),))
    skipped = 'aten::batch_norm', 'aten::upsample_nearest2d', 'aten::group_norm'
    analyser.set_op_handle(**dict.fromkeys(skipped, lambda *_: 0)).tracer_warnings('none')
    analyser.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return {name: analyser.by_module()[f'detector.{name}'] for name, _ in model.named_children()}


@pytest.mark.parametrize('name', ['retinanet_r18_fpn', 'faster-rcnn_r18_fpn'])
def test_dense_neck_and_heads_equal_the_analyser_s_counts(name):
    model, size = detector(name), (96, 128)
    reference = analysed(model, size)
    with torch.no_grad(), MacMeter(model.eval()) as meter:
        _Raw(model)(torch.zeros(1, 3, *size))
    macs = meter.take()
    for part in reference.keys() - {'backbone', 'data_preprocessor'}:
        assert macs.part(part).macs == pytest.approx(reference[part], rel=1e-9)


def test_parts_of_a_detector_add_up():
    report = count_macs(detector('retinanet_r18_fpn'), (96, 128))
    assert list(report.parts) == ['backbone', 'neck', 'bbox_head']
    assert sum(part.original for part in report.parts.values()) == report.original
    assert report.macs == report.original


def test_a_roi_head_counts_for_all_the_boxes_that_it_may_get():
    # 1000 boxes of 7*7*256 features: two shared layers of 1024, 81 classes, 4 * 80 coordinates.
    head = 1000 * (7 * 7 * 256 * 1024 + 1024 * 1024 + 1024 * 81 + 1024 * 320)
    for size in (64, 64), (96, 160):
        report = count_macs(detector('faster-rcnn_r18_fpn'), size)
        assert report.parts['roi_head'].original == pytest.approx(head)


def test_static_groups_count_as_they_are_without_images():
    torch.manual_seed(0)
    report = count_macs(FLGCResNet(18, base_channels=16, groups=4), (64, 64))
    grouped = [row for row in report.layers if row.density is not None]
    assert all(row.density < 0.6 for row in grouped)
    assert report.masked == pytest.approx(sum(row.density * row.original for row in grouped), 1e-6)


def test_attention_in_a_head_is_found_by_the_analyser():
    model = detector('retinanet_r18_fpn')
    assert unmetered_macs(model, torch.zeros(1, 3, 64, 64)) == {}
    model.neck.fpn_convs[0] = nn.Sequential(model.neck.fpn_convs[0], _Gram())
    other = count_macs(model, (64, 64)).parts['neck'].layers[-1]
    # P3 of a 64x64 image is 8x8: (8*8)^2 * 256, twice.
    assert (other.name, other.macs) == ('neck.other', 2 * 64**2 * 256)


def test_small_layers_tell_why_they_are_dense(capsys):
    backbone = MODELS.build(dict(type='DGCMobileNetV2', heads=20, out_indices=(1,)))
    report = count_macs(backbone, (64, 64))
    notes = {row.name: row.note for row in report.layers if row.note}
    assert notes['layer1.0.linear_conv.conv'] == '32 -> 16 channels for 20 heads'
    print_macs(report, 'a title')
    assert 'for 20 heads' in capsys.readouterr().out


class _Gram(nn.Module):
    """Attention of every place to every other, with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        flat = x.flatten(2)
        weights = (flat.transpose(1, 2) @ flat * self.scale).softmax(dim=-1)
        return (flat @ weights).view_as(x)
