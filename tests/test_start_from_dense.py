"""Gates by image on a trained dense network's weights: at their start it is that network still."""

import os
from pathlib import Path

import cv2
import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_groupconv.analysis.dense_host import dense_model_cfg
from mmdet_groupconv.backbones import (
    DGCMobileNetV2,
    DGCResNet,
    MSGCMobileNetV2,
    MSGCResNet,
    TrimmedMobileNetV2,
)
from mmdet_groupconv.checkpoints import read_classifier
from mmdet_groupconv.engine import MACBudgetHook
from mmdet_groupconv.layers import DGCConv2d, GroupedLayer, MaskGenerator

PROJECT = Path(__file__).resolve().parents[1]
METHOD = pytest.mark.parametrize('method', ['msgc', 'dgc'])
TRAINING = pytest.mark.parametrize('training', [True, False])
BACKBONES = {
    ('msgc', 'r18'): MSGCResNet,
    ('dgc', 'r18'): DGCResNet,
    ('msgc', 'mbv2'): MSGCMobileNetV2,
    ('dgc', 'mbv2'): DGCMobileNetV2,
}


def backbones(method, host, **arguments):
    """The dense one and ours, with other weights each."""
    own = {'msgc': dict(attention=True), 'dgc': dict(pre_norm=False)}[method]
    shared = dict(depth=18, base_channels=16) if host == 'r18' else dict(out_indices=(1, 2, 4, 6))
    shared = dict(shared, norm_eval=False) | arguments
    dense = ResNet if host == 'r18' else TrimmedMobileNetV2
    return dense(**shared), BACKBONES[method, host](**shared, **own)


def detectors(method, host):
    """The same of RetinaNets whose backbone, neck and head are grouped."""
    path = PROJECT / f'configs/retinanet/retinanet_{method}-{host}_fpn_whole_1x_coco.py'
    cfg = Config.fromfile(path).model
    cfg.backbone.update(norm_eval=False, frozen_stages=-1, init_cfg=None)
    cfg.neck.out_channels = cfg.bbox_head.in_channels = cfg.bbox_head.feat_channels = 32
    if host == 'r18':
        cfg.backbone.base_channels = 16
        cfg.neck.in_channels = [16, 32, 64, 128]
    if method == 'dgc':
        cfg.backbone.pre_norm = False
    return MODELS.build(dense_model_cfg(cfg)), MODELS.build(cfg)


def start(model, dense, precision=torch.float64):
    """As a training from dense weights begins: those, the gates' start, the first noise."""
    dense.to(precision)
    model.to(precision)
    assert model.load_state_dict(dense.state_dict(), strict=False).unexpected_keys == []
    for module in model.modules():
        if isinstance(module, MaskGenerator):
            channels = module.conv[3].out_channels // module.heads
            module.start_from_importance(torch.rand(module.heads, channels))
            module.noise = MACBudgetHook(settle=0.0).noise_at(0.0)
        elif isinstance(module, DGCConv2d):
            module.start_from_importance(torch.rand(module.saliency.heads, module.in_channels))


def make_norms_vary(model):
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.3, 3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for output in outputs for tensor in flat(output)]


def in_mode(training, *models):
    for model in models:
        model.train(training)


def assert_same(ours, theirs):
    """In float64, as norms over a batch amplify rounding: up to 1e-6 of each map's variation."""
    for out, expected in zip(flat(ours), flat(theirs), strict=True):
        assert (out - expected).norm() <= 1e-6 * (expected - expected.mean()).norm()


@TRAINING
@pytest.mark.parametrize('host', ['r18', 'mbv2'])
@METHOD
def test_a_backbone_gives_the_dense_ones_maps(method, host, training):
    dense, ours = backbones(method, host)
    make_norms_vary(dense)
    start(ours, dense)
    in_mode(training, dense, ours)
    x = torch.randn(2, 3, 64, 64).double()
    with torch.no_grad():
        assert_same(ours(x), dense(x))


@TRAINING
@pytest.mark.parametrize('host', ['r18', 'mbv2'])
@METHOD
def test_a_detector_gives_the_dense_ones_scores_and_boxes(method, host, training):
    dense, ours = detectors(method, host)
    make_norms_vary(dense)
    start(ours, dense)
    parts = {name.split('.')[0] for name, m in ours.named_modules() if isinstance(m, GroupedLayer)}
    assert parts == {'backbone', 'neck', 'bbox_head'}
    in_mode(training, dense, ours)
    x = torch.randn(2, 3, 64, 64).double()
    with torch.no_grad():
        assert_same(ours(x, mode='tensor'), dense(x, mode='tensor'))


@pytest.mark.parametrize('arguments', [dict(with_cp=True), dict(frozen_stages=2)], ids=str)
@METHOD
def test_so_it_does_with_the_hosts_arguments(method, arguments):
    dense, ours = backbones(method, 'r18', **arguments)
    start(ours, dense)
    in_mode(True, dense, ours)
    x = torch.randn(2, 3, 64, 64).double().requires_grad_()
    assert_same(ours(x), dense(x))


@METHOD
def test_under_autocast_it_errs_as_the_dense_one_does(method):
    dense, ours = backbones(method, 'r18')
    start(ours, dense, torch.float32)
    in_mode(True, dense, ours)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        exact = dense(x)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            outputs = zip(ours(x), dense(x), exact, strict=True)
    for our, their, expected in outputs:
        assert (our - expected).norm() < 1.2 * (their - expected).norm()


@pytest.fixture(scope='module')
def photographs():
    """Four COCO images, normalised: ``[4, 3, 224, 224]``."""
    data = Path(os.environ.get('MMDET_GROUPCONV_SHARED', PROJECT.parent / 'shared')) / 'data'
    paths = sorted((data / 'coco_person/images').glob('*.jpg'))[:4]
    if not paths:
        pytest.skip(f'no images in {data}/coco_person: set MMDET_GROUPCONV_SHARED to its parent')
    images = [cv2.resize(cv2.imread(str(path))[..., ::-1], (224, 224)) for path in paths]
    x = torch.stack([torch.tensor(image) for image in images]).permute(0, 3, 1, 2).float()
    mean, std = torch.tensor([123.7, 116.3, 103.5]), torch.tensor([58.4, 57.1, 57.4])
    return (x - mean[:, None, None]) / std[:, None, None]


@pytest.fixture(scope='module')
def imagenet_state():
    """A MobileNetV2's, trained on ImageNet."""
    data = Path(os.environ.get('MMDET_GROUPCONV_SHARED', PROJECT.parent / 'shared')) / 'data'
    path = data / 'pretrained/mobilenet_v2_imagenet.pth'
    if not path.is_file():
        pytest.skip(f'no weights in {path}: set MMDET_GROUPCONV_SHARED to the folder above `data`')
    state = read_classifier(path).state
    return {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}


@TRAINING
@METHOD
def test_trained_weights_give_their_maps_of_photographs(
    method, training, photographs, imagenet_state
):
    dense, ours = backbones(method, 'mbv2', norm_eval=True)
    dense.load_state_dict(imagenet_state, strict=False)
    start(ours, dense)
    in_mode(training, dense, ours)
    with torch.no_grad():
        assert_same(ours(photographs.double()), dense(photographs.double()))
