import json

import pytest
import torch
from torch import nn

from mmdet_groupconv.analysis import count_macs, print_macs, with_classifier
from mmdet_groupconv.analysis.macs import mean_report
from mmdet_groupconv.backbones import MSGCResNet


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
    whole = count_macs(with_classifier(backbone, 10), (224, 224))
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
    print_macs(count_macs(backbone, (32, 32)), 'a title', target=0.5)
    printed = capsys.readouterr().out
    for text in ('a title', 'layer1.0.conv1', 'ratio reached', 'ratio targeted', '0.5000'):
        assert text in printed
