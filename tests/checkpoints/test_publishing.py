"""Backbones taken out of classifiers, and what detectors make of them."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from mmdet_groupconv.checkpoints import grouping_keys, publish_backbone, read_checkpoint
from mmdet_groupconv.engine.checkpoint_inputs import check_checkpoints
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.engine.self_grouping import sgc_layers
from mmdet_groupconv.layers import DGCConv2d

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STATE = {
    'backbone.conv1.weight': torch.arange(6.0).view(2, 3),
    'backbone.bn1.running_mean': torch.ones(2),
    'fc.weight': torch.ones(3, 2),
}


def save(path, state=STATE, **rest):
    torch.save(dict(state_dict=state, **rest), path)
    return path


@pytest.fixture
def trained(tmp_path):
    """A checkpoint with all that MMEngine's have besides weights."""
    optimizer = dict(state={0: dict(momentum_buffer=torch.ones(2))}, param_groups=[])
    meta = dict(epoch=3, iter=7, cfg='model = dict()', seed=0)
    return save(tmp_path / 'epoch_3.pth', meta=meta, optimizer=optimizer, message_hub={})


def test_the_name_has_eight_digits_of_the_file_s_own_hash(trained, tmp_path):
    path, tensors = publish_backbone(trained, tmp_path / 'msgc.r18.pth')
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert path == tmp_path / f'msgc.r18-{digits}.pth'
    assert tensors == 2


def test_an_ending_is_added_where_there_is_none(trained, tmp_path):
    path, _ = publish_backbone(trained, str(tmp_path / 'msgc'))
    assert re.fullmatch(r'msgc-[0-9a-f]{8}\.pth', path.name)


def test_only_the_backbone_is_in_the_file(trained, tmp_path):
    path, _ = publish_backbone(trained, tmp_path / 'out.pth')
    content = torch.load(path, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert list(content['state_dict']) == ['backbone.conv1.weight', 'backbone.bn1.running_mean']
    assert all(torch.equal(STATE[key], value) for key, value in content['state_dict'].items())
    assert content['meta'] == dict(epoch=3)


def test_the_same_tensors_give_the_same_name_from_another_file(trained, tmp_path):
    copy = save(tmp_path / 'best.pth', {**STATE, 'fc.bias': torch.ones(3)}, meta=dict(epoch=3))
    assert publish_backbone(copy, tmp_path / 'a.pth') == publish_backbone(trained, tmp_path / 'a')


def test_other_tensors_give_another_name(trained, tmp_path):
    other = {**STATE, 'backbone.conv1.weight': STATE['backbone.conv1.weight'] + 1e-6}
    second = save(tmp_path / 'other.pth', other, meta=dict(epoch=3))
    names = {publish_backbone(path, tmp_path / 'a.pth')[0] for path in (trained, second)}
    assert len(names) == 2


def test_a_parallel_run_s_checkpoint_is_understood(tmp_path):
    path = save(tmp_path / 'x.pth', {f'module.{key}': value for key, value in STATE.items()})
    published, _ = publish_backbone(path, tmp_path / 'out.pth')
    state, _ = read_checkpoint(published)
    assert set(state) == {'backbone.conv1.weight', 'backbone.bn1.running_mean'}


@pytest.mark.parametrize('keys', [['fc.weight'], ['conv1.weight'], ['backbones.conv1.weight']])
def test_a_file_without_a_backbone_is_refused(tmp_path, keys):
    path = save(tmp_path / 'x.pth', dict.fromkeys(keys, torch.ones(2)))
    with pytest.raises(ValueError, match=r"x\.pth has no keys that begin with 'backbone\.'"):
        publish_backbone(path, tmp_path / 'out.pth')
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.pth not found'):
        publish_backbone(tmp_path / 'gone.pth', tmp_path / 'out.pth')
    (tmp_path / 'x.pth').write_text('no checkpoint')
    with pytest.raises(ValueError, match=r'x\.pth'):
        publish_backbone(tmp_path / 'x.pth', tmp_path / 'out.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['x.pth']


def test_a_failed_write_leaves_nothing_behind(trained, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr(Path, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        publish_backbone(trained, tmp_path / 'out.pth')
    assert list(tmp_path.iterdir()) == [trained]


def shrink(cfg):
    """Narrow, and without files to begin with."""
    backbone = cfg.model.backbone
    backbone.init_cfg = None
    if 'ResNet' in backbone.type:
        backbone.base_channels = 8
        widths = [8, 16, 32, 64]
    else:
        backbone.widen_factor = 0.25
        widths = [8, 8, 24, 80]
    if 'neck' in cfg.model:
        cfg.model.neck.in_channels = widths
    return cfg


@torch.no_grad()
def unlike_fresh(model):
    """Other values than a new network has, in every tensor."""
    for name, value in model.state_dict().items():
        if name.endswith('.mask'):
            value.copy_(torch.rand_like(value) > 0.5)
        elif value.is_floating_point():
            value.add_(torch.rand_like(value) + 0.5)
        elif name.endswith('num_batches_tracked'):
            value.fill_(5)
    for module in model.modules():
        if isinstance(module, DGCConv2d):
            module.set_progress(0.5)
    return model


def classifier_and_detector(method, host, tmp_path):
    """A classifier of the recipes, and a detector that begins with its published backbone."""
    torch.manual_seed(0)
    (recipe,) = CONFIGS.glob(f'imagenet/{method}-{host}_*')
    classifier = unlike_fresh(build_model(shrink(Config.fromfile(recipe))))
    checkpoint = save(tmp_path / 'epoch_1.pth', classifier.state_dict())
    path, _ = publish_backbone(checkpoint, tmp_path / 'published.pth')
    name = host if method == 'dense' else f'{method}-{host}'
    cfg = shrink(Config.fromfile(CONFIGS / f'retinanet/retinanet_{name}_fpn_1x_coco.py'))
    cfg.model.backbone.update(frozen_stages=-1, norm_eval=False)
    init = dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')
    cfg.model.backbone.init_cfg = init
    detector = build_model(cfg)
    reports = check_checkpoints(cfg, detector, ('train',))
    detector.init_weights()
    return classifier.backbone, detector, reports


@pytest.mark.parametrize('host', ['r18', 'mbv2'])
@pytest.mark.parametrize('method', ['dense', 'msgc', 'dgc', 'flgc', 'sgc'])
def test_a_detector_s_backbone_has_every_tensor_of_the_classifier_s(method, host, tmp_path):
    source, detector, (report,) = classifier_and_detector(method, host, tmp_path)
    expected, found = source.state_dict(), detector.backbone.state_dict()
    assert found.keys() <= expected.keys()  # a detector may trim the last layers
    assert all(torch.equal(expected[key], value) for key, value in found.items())
    assert bool(grouping_keys(detector.backbone)) == (method != 'dense')
    assert f'backbone: {len(found)} of {len(found)} tensors from ' in report
    assert 'start anew' not in report


def test_a_detector_keeps_the_masks_of_a_self_grouped_classifier(tmp_path):
    source, detector, _ = classifier_and_detector('sgc', 'r18', tmp_path)
    layers = sgc_layers(detector.backbone)
    masks = {name: layer.mask for name, layer in sgc_layers(source).items()}
    weights = {name: layer.weight.clone() for name, layer in layers.items()}
    batch = demo_mm_inputs(2, image_shapes=[(3, 64, 64)] * 2, num_classes=80)
    optimizer = OptimWrapper(torch.optim.SGD(detector.parameters(), lr=1e-3, weight_decay=0.1))
    detector.train().train_step(batch, optimizer)
    assert all(torch.equal(layer.mask, masks[name]) for name, layer in layers.items())
    assert not any(torch.equal(layer.weight, weights[name]) for name, layer in layers.items())
    detector.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = detector.backbone(images)
        for layer in layers.values():
            layer.weight[layer.mask == 0] = 1e3
        after = detector.backbone(images)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
