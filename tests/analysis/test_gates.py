"""The recorder against masks gathered one by one, its figures against loops."""

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_groupconv.analysis.gates import GateRecorder, LayerGates, amounts
from mmdet_groupconv.backbones import FLGCResNet, MSGCMobileNetV2, MSGCResNet
from mmdet_groupconv.layers import (
    DGCConv2d,
    FixedGroupConv2d,
    FLGCConv2d,
    Gate,
    MSGCConv2d,
    SGCConv2d,
    SGCLinear,
)


def msgc(channels=6, filters=8, heads=2):
    """Gates that differ from image to image."""
    layer = MSGCConv2d(channels, filters, 3, padding=1, heads=heads)
    nn.init.normal_(layer.maskgen.conv[3].weight, std=2.0)
    nn.init.zeros_(layer.maskgen.conv[3].bias)
    return layer


def one(layer, name='conv'):
    model = nn.Sequential()
    model.add_module(name, layer)
    return model.eval()


@torch.no_grad()
def recorded(model, *batches, **settings):
    with GateRecorder(model, **settings) as recorder:
        for batch in batches:
            model(batch)
    return recorder.take()


def masks_by_image(layer, images):
    with torch.no_grad():
        return torch.cat([layer.gate(layer.prepare(image[None])).mask for image in images]).numpy()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_gates_by_image_are_those_of_each_image_alone():
    layer, images = msgc(), torch.randn(5, 6, 9, 9)
    (found,) = recorded(one(layer), images[:2], images[2:])
    expected = masks_by_image(layer, images)
    assert 0 < expected.mean() < 1
    assert found.read.dtype == np.uint8
    np.testing.assert_array_equal(found.read, expected)
    assert (found.name, found.method, found.static) == ('conv', 'MSGC', False)
    assert found.sizes.tolist() == [4, 4]
    assert found.macs == 8 * 6 * 9 * 9 * 9


@pytest.mark.parametrize('limit', [1, 3, 4])
def test_the_first_images_are_kept(limit):
    layer, images = msgc(), torch.randn(6, 6, 9, 9)
    (found,) = recorded(one(layer), images[:2], images[2:4], images[4:], max_images=limit)
    np.testing.assert_array_equal(found.read, masks_by_image(layer, images)[:limit])


def test_images_are_spread_over_batches():
    layer, images = msgc(), torch.randn(9, 6, 9, 9)
    (found,) = recorded(one(layer), *images.split(3), max_images=5, batches=3)
    expected = masks_by_image(layer, images)[[0, 1, 3, 4, 6]]
    np.testing.assert_array_equal(found.read, expected)


class Tower(nn.Module):
    """One layer on two maps, as a head on two levels."""

    def __init__(self, layer):
        super().__init__()
        self.conv = layer

    def forward(self, x):
        return self.conv(x), self.conv(x[..., ::2, ::2] * 3 - 1)


def test_calls_of_a_tower_are_averaged():
    layer, images = msgc(), torch.randn(4, 6, 9, 9)
    (found,) = recorded(Tower(layer).eval(), images)
    levels = masks_by_image(layer, images), masks_by_image(layer, images[..., ::2, ::2] * 3 - 1)
    assert (levels[0] != levels[1]).any()
    np.testing.assert_allclose(found.read, (levels[0] + levels[1]) / 2)
    assert found.macs == 8 * 6 * 9 * (9 * 9 + 5 * 5)


class Boxes(nn.Module):
    """A batch of another number than the images': what a RoI head sees."""

    def __init__(self, layer):
        super().__init__()
        self.conv = layer

    def forward(self, x):
        return self.conv(x.repeat(3, 1, 1, 1)[: 3 * len(x) - 1])


def test_boxes_are_averaged_into_one():
    layer, images = msgc(), torch.randn(5, 6, 9, 9)
    (found,) = recorded(Boxes(layer).eval(), images[:2], images[2:])
    boxes = [b.repeat(3, 1, 1, 1)[: 3 * len(b) - 1] for b in (images[:2], images[2:])]
    expected = masks_by_image(layer, torch.cat(boxes)).mean(axis=0, keepdims=True)
    batches = [masks_by_image(layer, batch).mean(axis=0) for batch in boxes]
    assert (batches[0] != batches[1]).any()  # so that their sizes count
    np.testing.assert_allclose(found.read, expected, rtol=1e-6)


def test_batches_without_boxes_count_for_nothing():
    layer, images = msgc(), torch.randn(3, 6, 9, 9)
    model = one(layer)
    with GateRecorder(model) as recorder, torch.no_grad():
        model(images)
        layer._show_gate(Gate(torch.ones(0, 2, 6)), images[:0], torch.zeros(0, 8, 9, 9))
    assert len(recorder.take()[0].read) == 3


def test_learned_groups_are_one_gate_with_the_filters_they_have():
    layer = FLGCConv2d(6, 9, 1, groups=3)
    layer.filter_logits.data[:, 1] = -9  # nobody's
    (found,) = recorded(one(layer), torch.randn(4, 6, 5, 5))
    assert found.static
    assert found.is_partition
    channel, filters = layer.channel_logits.argmax(dim=1), layer.filter_logits.argmax(dim=1)
    expected = torch.stack([channel == group for group in range(3)])
    np.testing.assert_array_equal(found.read[0], expected)
    assert found.sizes.tolist() == [int((filters == group).sum()) for group in range(3)]
    assert found.sizes[1] == 0


@pytest.mark.parametrize('kind', ['conv', 'linear'])
def test_filters_that_read_alike_are_one_cluster(kind):
    layer = SGCConv2d(6, 8, 1) if kind == 'conv' else SGCLinear(6, 8)
    patterns = torch.tensor([[1, 1, 0, 0, 1, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]])
    which = torch.tensor([0, 1, 2, 1, 1, 0, 2, 1])
    layer.mask.copy_(patterns[which])
    x = torch.randn(2, 6, 4, 4) if kind == 'conv' else torch.randn(2, 6)
    (found,) = recorded(one(layer), x)
    assert found.method == 'SGC'
    assert not found.is_partition
    np.testing.assert_array_equal(found.read[0][found.assign], patterns[which])
    assert sorted(found.sizes) == [2, 2, 4]


def test_frozen_gates_are_static():
    layer = msgc()
    layer.frozen = Gate(torch.tensor([[[1.0, 0, 0, 1, 1, 0]] * 2]))
    (found,) = recorded(one(layer), torch.randn(3, 6, 9, 9))
    assert found.static
    assert found.read.tolist() == [[[1, 0, 0, 1, 1, 0]] * 2]


@pytest.mark.parametrize(
    ('build', 'method'),
    [
        (lambda: one(DGCConv2d(6, 8, 1, heads=2)), 'DGC'),
        (lambda: one(FixedGroupConv2d(6, 8, 1, groups=2)), 'FixedGroup'),
        (lambda: FLGCResNet(18, base_channels=8).eval(), 'FLGC'),
        (lambda: MSGCResNet(18, base_channels=8).eval(), 'MSGC'),
        (lambda: MSGCMobileNetV2(widen_factor=0.25).eval(), 'MSGC'),
    ],
)
def test_methods_are_told_by_layer_or_block(build, method):
    model = build()
    channels = 6 if isinstance(model, nn.Sequential) else 3
    found = recorded(model, torch.randn(2, channels, 32, 32))
    assert {layer.method for layer in found} == {method}


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_a_traced_pass_is_no_image():
    model, x = one(msgc()), torch.randn(2, 6, 9, 9)
    with GateRecorder(model) as recorder, torch.no_grad():
        torch.jit.trace(model, x, check_trace=False)
        assert recorder.images == 0
        model(x)
    assert recorder.images == 2


class Fails(nn.Sequential):
    def forward(self, x):
        y = super().forward(x)
        if len(x) == 1:
            raise RuntimeError
        return y


def test_a_pass_that_failed_is_forgotten():
    layer, images = msgc(), torch.randn(2, 6, 9, 9)
    model = Fails(layer).eval()
    with GateRecorder(model) as recorder, torch.no_grad():
        with pytest.raises(RuntimeError):
            model(images[:1] + 5)
        model(images)
    (found,) = recorder.take()
    np.testing.assert_array_equal(found.read, masks_by_image(layer, images))


def test_nothing_listens_afterwards():
    model, x = one(msgc()), torch.randn(2, 6, 9, 9)
    recorded(model, x)
    assert not model.conv._gate_hooks
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_layers_that_are_not_reached_are_left_out():
    model = one(msgc())
    model.conv.aside = msgc()
    assert [layer.name for layer in recorded(model, torch.randn(2, 6, 9, 9))] == ['conv']


def test_a_dense_model_is_refused():
    with pytest.raises(ValueError, match='Sequential has no grouped layers'):
        GateRecorder(nn.Sequential(nn.Conv2d(3, 4, 1)))


def random_layer(seed, images=5):
    rng = np.random.default_rng(seed)
    read = rng.choice([0, 0.5, 1], size=(images, 3, 4), p=[0.3, 0.1, 0.6]).astype(np.float32)
    read[:, 0, 1], read[:, 2, 3] = 1, 0
    return LayerGates('x', 'MSGC', False, read, np.array([0, 2, 2, 0, 2]), 10.0)


@pytest.mark.parametrize('seed', range(5))
def test_figures_equal_loops_over_filters_channels_and_images(seed):
    layer = random_layer(seed)
    always = sometimes = never = 0
    by_image = np.zeros(5)
    for group in layer.assign:
        for channel in range(4):
            values = [float(image[group, channel]) for image in layer.read]
            by_image += values
            if min(values) == 1:
                always += 1
            elif max(values) == 0:
                never += 1
            else:
                sometimes += 1
    connections = 5 * 4
    expected = [always / connections, sometimes / connections, never / connections]
    assert layer.variation() == pytest.approx(expected)
    assert layer.amount() == pytest.approx(by_image / connections)
    for group in range(3):
        assert layer.density()[group] == pytest.approx(layer.read[:, group].mean())
        for channel in range(4):
            mean = sum(image[group, channel] for image in layer.read) / 5
            assert layer.connectivity()[group, channel] == pytest.approx(mean)


def test_images_amounts_weigh_layers_by_their_macs():
    one, other = random_layer(1), random_layer(2)
    heavy = LayerGates('y', 'MSGC', False, other.read, other.assign, 30.0)
    static = LayerGates('z', 'FLGC', True, one.read[:1], one.assign, 99.0)
    boxes = LayerGates('b', 'MSGC', False, one.read[:1], one.assign, 99.0)
    expected = (10 * one.amount() + 30 * heavy.amount()) / 40
    assert amounts([one, heavy, static, boxes]) == pytest.approx(expected)
    assert len(amounts([static])) == 0
