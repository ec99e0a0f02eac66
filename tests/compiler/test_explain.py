"""Every layer says how it is run, how much it does, and why."""

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_groupconv.compiler import compact, explain
from mmdet_groupconv.layers import SGCConv2d
from mmdet_groupconv.macs import MacMeter

TINY = dict(base_channels=8)


def rows_of(model, x):
    return {row.name: row for row in explain(compact(model), lambda network: network(x))}


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(1, 3, 64, 96)


def test_rows_have_the_names_of_the_network(x):
    model = MODELS.build(dict(type='MSGCResNet', depth=18, **TINY)).eval()
    convolutions = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and 'gen' not in name
    }
    assert set(rows_of(model, x)) == convolutions


def test_kinds_and_reasons(x):
    model = MODELS.build(dict(type='DGCMobileNetV2', widen_factor=0.25, heads=2)).eval()
    found = explain(compact(model), lambda network: network(x))
    kinds = {row.kind for row in found}
    assert kinds == {'static', 'own gates', 'depthwise', 'norm before'}
    (stem,) = (row for row in found if row.name == 'conv1')
    assert stem.reason == 'not grouped'


def test_what_stays_eager_says_why(x):
    class Own(SGCConv2d):
        def forward(self, x):
            return super().forward(x)

    row = rows_of(nn.Sequential(nn.Conv2d(3, 8, 3), Own(8, 8, 3, padding=1)), x)['1']
    assert (row.kind, row.form) == ('Own', 'eager')
    assert row.reason == 'Own has a forward of its own'
    assert row.macs == 8 * 8 * 9 * 62 * 94


@torch.no_grad()
def test_counts_what_is_done(x):
    model = MODELS.build(dict(type='ResNet', depth=18, **TINY))
    model.eval()
    with MacMeter(model) as meter:
        model(x)
    convolutions = meter.take().original
    done = sum(row.macs for row in rows_of(model, x).values())
    assert convolutions * 0.9 < done <= convolutions  # less the norms and the pooling


@torch.no_grad()
def test_counts_less_where_gates_are_closed(x, mix_gates):
    model = mix_gates(MODELS.build(dict(type='MSGCResNet', depth=18, **TINY)), torch.cat([x, -x]))
    done = sum(row.macs for row in rows_of(model, x).values())
    for name, parameter in model.named_parameters():
        if 'maskgen' in name and name.endswith('conv.3.bias'):
            nn.init.constant_(parameter, 99.0)
    assert done < sum(row.macs for row in rows_of(model, x).values())


def test_tells_the_time_of_every_form_that_was_tried(x):
    torch.manual_seed(0)
    layer = SGCConv2d(64, 64, 1).eval()
    layer.mask.copy_((torch.arange(64)[:, None] // 32 == torch.arange(64) // 32).float())
    model, x = nn.Sequential(layer), torch.randn(1, 64, 40, 40)
    row = rows_of(model, x)['0']
    assert row.form in row.milliseconds
    assert row.milliseconds[row.form] == min(row.milliseconds.values()) > 0


def test_the_network_is_left_as_it_was(x):
    model = compact(MODELS.build(dict(type='FLGCResNet', depth=18, **TINY)))
    explain(model, lambda network: network(x))
    assert not any(module.forms.chosen for module in model.modules() if hasattr(module, 'forms'))
