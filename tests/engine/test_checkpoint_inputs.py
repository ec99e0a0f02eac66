"""What is checked of checkpoints before a run writes anything."""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_groupconv.checkpoints import grouping_keys
from mmdet_groupconv.engine.checkpoint_inputs import check_checkpoints
from mmdet_groupconv.engine.launch import build_model, build_runner

DENSE = dict(type='ResNet', depth=18, base_channels=4, out_indices=(3,))


def classifier_cfg(checkpoint=None, prefix='', **settings):
    """Of an MSGC classifier whose backbone begins with a file."""
    backbone = dict(DENSE, type='MSGCResNet')
    if checkpoint:
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=str(checkpoint), prefix=prefix)
    model = dict(type='ImageClassifier', num_classes=3, backbone=backbone)
    return Config({'model': model, **settings})


def reports(cfg, *modes):
    return check_checkpoints(cfg, build_model(cfg), modes)


@pytest.fixture
def save(tmp_path):
    def save(state, name='file.pth'):
        torch.save(dict(state_dict=state), tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.fixture
def state():
    """Of the classifier, gate nets included."""
    return build_model(classifier_cfg()).state_dict()


def test_dense_weights_are_reported_to_leave_the_gate_nets_new(save):
    dense = MODELS.build(DENSE).state_dict()
    path = save({**dense, 'fc.weight': torch.ones(3, 32), 'fc.bias': torch.ones(3)})
    cfg = classifier_cfg(path)
    gates = grouping_keys(build_model(cfg).backbone)
    (line,) = reports(cfg, 'train')
    total = len(dense) + len(gates)
    assert line.startswith(f'backbone: {len(dense)} of {total} tensors from {path}; ')
    assert f'start anew: of the grouping {len(gates)} (layer1.0.' in line
    assert line.endswith('; in the file but not used 2 (fc)')
    assert 'others' not in line


def test_a_file_that_fits_is_reported_with_all_its_tensors(save, state):
    path = save(state)
    (line,) = reports(classifier_cfg(path, 'backbone.'), 'train')
    number = sum(key.startswith('backbone.') for key in state)
    assert line == f'backbone: {number} of {number} tensors from {path}'


def test_a_file_with_some_gate_nets_missing_is_refused(save, state):
    own = grouping_keys(build_model(classifier_cfg()).backbone)
    gates = [f'backbone.{key}' for key in own if not key.endswith('num_batches_tracked')]
    lost = sorted(key for key in gates if '.layer3.' in key)
    path = save({key: value for key, value in state.items() if key not in lost})
    held = len(gates) - len(lost)
    message = (
        rf'file.pth holds {held} of the {len(gates)} tensors that decide the grouping of '
        rf'MSGCResNet \(first missing: {lost[0].removeprefix("backbone.")}\), expected all'
    )
    with pytest.raises(ValueError, match=message):
        reports(classifier_cfg(path, 'backbone.'), 'train')
    with pytest.raises(ValueError, match=message):
        reports(classifier_cfg(load_from=path), 'train')


def test_files_of_another_network_are_refused(save, state):
    path = save(state)
    cfg = classifier_cfg(path, 'backbone.')
    cfg.model.backbone.base_channels = 8
    with pytest.raises(ValueError, match=r'file.pth does not fit MSGCResNet: .*of another shape'):
        reports(cfg, 'train')
    with pytest.raises(ValueError, match=r"no keys that begin with 'neck\."):
        reports(classifier_cfg(path, 'neck'), 'train')


def test_a_missing_file_is_named():
    for cfg in (classifier_cfg('gone.pth'), classifier_cfg(load_from='gone.pth')):
        with pytest.raises(FileNotFoundError, match=r'checkpoint gone\.pth not found'):
            reports(cfg, 'train')


def test_files_that_are_downloaded_first_are_left_alone():
    assert reports(classifier_cfg('torchvision://resnet18'), 'train') == []
    assert reports(classifier_cfg(load_from='https://host/file.pth'), 'train') == []


def test_a_test_reads_no_file_to_begin_with(save, state):
    assert reports(classifier_cfg('gone.pth', load_from=save(state)), 'test') == []


def test_the_classifier_s_own_file_is_checked_too(save, state):
    cfg = classifier_cfg()
    cfg.model.fc_init_cfg = dict(type='Pretrained', checkpoint='gone.pth', prefix='fc.')
    with pytest.raises(FileNotFoundError, match=r'checkpoint gone\.pth not found'):
        reports(cfg, 'train')
    path = cfg.model.fc_init_cfg.checkpoint = save(state)
    assert reports(cfg, 'train') == [f'fc: 2 of 2 tensors from {path}']
    cfg.model.num_classes = 7
    with pytest.raises(ValueError, match='does not fit Linear'):
        reports(cfg, 'train')


def test_fine_tuning_may_have_another_classifier(save, state):
    path = save(state)
    cfg = classifier_cfg(load_from=path)
    cfg.model.num_classes = 7
    (line,) = reports(cfg, 'train')
    assert line == (
        f'model: {len(state) - 2} of {len(state)} tensors from {path}; '
        'start anew: others 2 (fc); in the file but not used 2 (fc)'
    )
    with pytest.raises(ValueError, match='does not fit ImageClassifier'):
        reports(cfg, 'test')
    cfg.resume = True
    with pytest.raises(ValueError, match='does not fit ImageClassifier'):
        reports(cfg, 'train')


def test_resuming_looks_into_the_work_dir(save, state, tmp_path):
    cfg = classifier_cfg(resume=True, work_dir=str(tmp_path))
    assert reports(cfg, 'train') == []
    state.popitem()
    (tmp_path / 'last_checkpoint').write_text(save(state))
    with pytest.raises(ValueError, match=r'file.pth does not fit ImageClassifier'):
        reports(cfg, 'train')


def test_the_tools_runner_logs_the_reports(tiny_cfg, save, tmp_path):
    cfg = copy.deepcopy(tiny_cfg)
    cfg.launcher = 'none'
    backbone = build_model(cfg).backbone
    dense = {k: v for k, v in backbone.state_dict().items() if k not in grouping_keys(backbone)}
    path = save(dense)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path)
    build_runner(cfg, ('train',))
    (log,) = Path(cfg.work_dir).glob('*/*.log')
    gates = len(grouping_keys(backbone))
    total = len(dense) + gates
    line = f'backbone: {len(dense)} of {total} tensors from {path}; start anew: of the grouping'
    assert f'{line} {gates} (' in log.read_text()


def test_nothing_is_written_before_the_checks(tiny_cfg):
    tiny_cfg.launcher = 'none'
    tiny_cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='gone.pth')
    with pytest.raises(FileNotFoundError, match=r'gone\.pth not found'):
        build_runner(tiny_cfg, ('train',))
    assert not Path(tiny_cfg.work_dir).exists()
