"""Gates by image become fixed ones."""

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_groupconv.backbones import DGCResNet, FLGCResNet, MSGCMobileNetV2, MSGCResNet
from mmdet_groupconv.compiler import compact
from mmdet_groupconv.compiler.freezing import freeze_gates
from mmdet_groupconv.layers import MaskGenerator, MSGCConv2d

NETWORKS = {
    'MSGC r18': lambda: MSGCResNet(18, base_channels=8, attention=True),
    'MSGC r50': lambda: MSGCResNet(50, base_channels=8),
    'MSGC mbv2': lambda: MSGCMobileNetV2(widen_factor=0.25),
    'DGC r18': lambda: DGCResNet(18, base_channels=8, heads=2),
}

HELD = {
    'MSGC r18': lambda: MSGCResNet(18, base_channels=8),
    'MSGC r50': NETWORKS['MSGC r50'],
    'MSGC mbv2': NETWORKS['MSGC mbv2'],
    'ragged heads': lambda: MSGCConv2d(3, 10, 3, heads=3, padding=1),
}


def gates_of(layer, x):
    seen = []
    handle = layer.register_gate_hook(lambda _, gate, *__: seen.append(gate))
    layer(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize('keep', [0.0, 0.3, 0.9])
def test_channels_read_on_more_than_the_share_are_kept(keep):
    torch.manual_seed(0)
    layer = MSGCConv2d(16, 8, 1, heads=2, attention=True).eval()
    for net in (layer.maskgen, layer.attgen):
        torch.nn.init.normal_(net.conv[3].weight, std=2)
        torch.nn.init.normal_(net.conv[3].bias)
    x = torch.randn(10, 16, 3, 3)
    seen = gates_of(layer, x)
    freeze_gates(layer, x.split(3), keep)
    share = seen.mask.mean(dim=0)
    assert torch.equal(layer.frozen.mask[0], (share > keep).float())
    read = share > 0
    mean = (seen.mask * seen.strength).sum(dim=0) / seen.mask.sum(dim=0).clamp(min=1)
    torch.testing.assert_close(layer.frozen.strength[0][read], mean[read])


@pytest.mark.parametrize('name', NETWORKS)
def test_frozen_networks_compute_with_the_fixed_gates(name, mix_gates):
    torch.manual_seed(0)
    network = mix_gates(NETWORKS[name](), torch.randn(4, 3, 64, 64)).double()
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    fast = compact(network, freeze=[images], keep=0.4)
    assert not any(getattr(m, 'per_image', False) for m in fast.modules())

    freeze_gates(network, [images], 0.4)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for one, other in zip(fast(x), network(x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def hold_gates(network):
    for generator in network.modules():
        if isinstance(generator, MaskGenerator):
            heads, channels = generator.heads, generator.conv[3].out_channels // generator.heads
            generator.hold((torch.rand(heads, channels) > 0.4).float())
    return network.eval()


@pytest.mark.parametrize('name', HELD)
def test_gates_that_are_held_need_no_freezing(name):
    torch.manual_seed(0)
    network = hold_gates(HELD[name]()).double()
    fast = compact(network)
    assert not any(getattr(m, 'per_image', False) for m in fast.modules())
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for one, other in zip(fast(x), network(x), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_attention_comes_with_the_image_where_the_mask_is_held():
    torch.manual_seed(0)
    network = hold_gates(NETWORKS['MSGC r18']())
    assert any(getattr(m, 'per_image', False) for m in compact(network).modules())


def test_one_image_frozen_is_that_image_gated(mix_gates):
    torch.manual_seed(0)
    network = mix_gates(NETWORKS['MSGC r18'](), torch.randn(4, 3, 64, 64)).double()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        for one, other in zip(compact(network, [image])(image), network(image), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_classifier_is_calibrated_on_what_its_loader_gives():
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='MSGCResNet', depth=18, base_channels=8),
            num_classes=2,
            data_preprocessor=dict(type='ImgDataPreprocessor', mean=[0] * 3, std=[1] * 3),
        )
    )
    batch = dict(inputs=torch.zeros(2, 3, 64, 64, dtype=torch.uint8), data_samples=[0, 1])
    freeze_gates(model.eval(), [batch], 0.5)
    assert model.backbone.layer1[0].conv1.frozen is not None


def test_the_model_keeps_its_gates():
    network = NETWORKS['MSGC r18']()
    compact(network, [torch.randn(1, 3, 64, 64)])
    assert not any(getattr(module, 'frozen', None) for module in network.modules())


@pytest.mark.parametrize(
    ('network', 'batches', 'keep', 'message'),
    [
        (NETWORKS['MSGC r18'], [torch.randn(1, 3, 64, 64)], 1.5, 'keep=1.5, expected a share'),
        (NETWORKS['MSGC r18'], [], 0.5, 'no calibration batch'),
        (lambda: FLGCResNet(18), [], 0.5, 'FLGCResNet has no gates by image'),
    ],
)
def test_what_can_not_be_frozen_is_said(network, batches, keep, message):
    with pytest.raises(ValueError, match=message):
        compact(network(), batches, keep)
