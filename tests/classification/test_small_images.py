"""Backbones for 32x32 images: their strides, their MACs, and their compact forms."""

from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.classification import ImageClassifier
from mmdet_groupconv.classification.small_images import take_small_images
from mmdet_groupconv.compiler import compact
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.layers import AttentionGenerator, DGCConv2d, MaskGenerator, SelfGrouping

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/cifar10'
RESNET = dict(depth=18, base_channels=8)
MOBILENET = dict(widen_factor=0.25, out_indices=(0, 1, 2, 4, 6, 7))
BACKBONES = {
    'dense r18': dict(type='ResNet', **RESNET),
    'MSGC r18': dict(type='MSGCResNet', attention=True, **RESNET),
    'DGC r18': dict(type='DGCResNet', **RESNET),
    'FLGC r18': dict(type='FLGCResNet', groups=2, **RESNET),
    'SGC r18': dict(type='SGCResNet', **RESNET),
    'plain groups r18': dict(type='FixedGroupResNet', groups=2, **RESNET),
    'dense mbv2': dict(type='TrimmedMobileNetV2', **MOBILENET),
    'MSGC mbv2': dict(type='MSGCMobileNetV2', **MOBILENET),
    'DGC mbv2': dict(type='DGCMobileNetV2', **MOBILENET),
    'FLGC mbv2': dict(type='FLGCMobileNetV2', groups=2, **MOBILENET),
    'SGC mbv2': dict(type='SGCMobileNetV2', **MOBILENET),
}
STRIDES = dict(r18=(1, 2, 4, 8), mbv2=(1, 1, 2, 4, 8, 8))


@pytest.mark.parametrize('host', STRIDES)
@torch.no_grad()
def test_strides_end_at_8(host):
    for name in (name for name in BACKBONES if name.endswith(host)):
        backbone = MODELS.build(BACKBONES[name])
        take_small_images(backbone)
        backbone.eval()
        outputs = backbone(torch.randn(1, 3, 32, 64))
        strides = [(32 // y.size(2), 64 // y.size(3)) for y in outputs]
        assert strides == [(stride, stride) for stride in STRIDES[host]], name


@pytest.mark.parametrize('host', STRIDES)
def test_nothing_but_a_resnet_s_first_weight_has_another_shape(host):
    for name in (name for name in BACKBONES if name.endswith(host)):
        backbone = MODELS.build(BACKBONES[name])
        before = {key: value.shape for key, value in backbone.state_dict().items()}
        take_small_images(backbone)
        after = {key: value.shape for key, value in backbone.state_dict().items()}
        expected = {'conv1.weight': (8, 3, 3, 3)} if host == 'r18' else {}
        assert after == {**before, **expected}, name


def test_modules_around_convolutions_tell_the_new_stride():
    backbone = MODELS.build(BACKBONES['dense mbv2'])
    take_small_images(backbone)
    modules = [module for module in backbone.modules() if isinstance(module, ConvModule)]
    assert [module.stride for module in modules] == [module.conv.stride for module in modules]


@torch.no_grad()
def mix_gates(model, images):
    """Gates that are neither all open nor all closed, norms that have seen data; to eval mode."""
    for module in model.modules():
        if isinstance(module, MaskGenerator):
            nn.init.normal_(module.conv[3].weight, std=0.7)
            nn.init.normal_(module.conv[3].bias, std=0.5)
        elif isinstance(module, AttentionGenerator):
            nn.init.normal_(module.conv[3].weight, std=0.1)
        elif isinstance(module, DGCConv2d):
            module.set_progress(1)
        elif isinstance(module, SelfGrouping):
            module.mask.copy_(torch.rand_like(module.mask) > 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = 1.0
    model.train()(images)
    model.eval()


@torch.no_grad()
@pytest.mark.parametrize('name', BACKBONES)
def test_compact_classifiers_compute_what_eager_ones_do(name):
    torch.manual_seed(0)
    backbone = MODELS.build(BACKBONES[name])
    classifier = ImageClassifier(backbone, 10, small_images=True).double()
    mix_gates(classifier, torch.randn(8, 3, 32, 32, dtype=torch.float64))
    fast = compact(classifier)
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    expected = [*classifier.backbone(images), classifier(images)]
    found = [*fast.backbone(images), fast(images)]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= 1e-4 * float(other.abs().max())


@torch.no_grad()
def test_the_published_mobilenet_for_cifar10_takes_89_million_macs():
    cfg = Config.fromfile(CONFIGS / 'dense-mbv2_10e_cifar10.py')
    report = count_macs(build_model(cfg), (32, 32), torch.randn(1, 3, 32, 32))
    assert report.original == pytest.approx(89.5e6, rel=0.005)
    assert report.ratio == 1


@pytest.mark.parametrize('cfg', [
    dict(type='ResNet', depth=18, deep_stem=True),
    dict(type='MSGCResNet', depth=50, deep_stem=True),
])  # fmt: skip
def test_a_resnet_with_a_deep_stem_is_refused(cfg):
    message = f'small_images with {cfg["type"]}, expected a ResNet with the plain stem'
    with pytest.raises(ValueError, match=message):
        take_small_images(MODELS.build(dict(cfg, base_channels=16)))


def test_other_backbones_are_refused():
    with pytest.raises(ValueError, match=r'small_images with Sequential, .* or a MobileNetV2'):
        take_small_images(nn.Sequential())
