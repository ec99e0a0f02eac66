"""Pictures of gates during tiny runs."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from mmengine.runner import Runner

from mmdet_groupconv.analysis import GatePicturesHook, gate_pictures_hook, gates


@pytest.fixture
def drawn(monkeypatch):
    """Draws nothing, which takes seconds; what would be drawn, a list of layers and images."""
    seen = []

    def plot_gates(layers, images):
        seen.append((layers, images))
        return {}

    monkeypatch.setattr(gate_pictures_hook, 'plot_gates', plot_gates)
    return seen


def with_hook(cfg, **settings):
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='GatePicturesHook', **settings)]
    return cfg


def scalars_of(runner):
    lines = Path(runner.log_dir, 'vis_data/scalars.json').read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_pictures_and_densities_reach_the_visualizer(tiny_cfg, train):
    tiny_cfg.model.backbone.type = 'ResNet'
    tiny_cfg.model.neck.conv_cfg = dict(type='MSGCConv2d', heads=2)
    tiny_cfg.custom_hooks = []
    runner = train(with_hook(tiny_cfg))
    folder = Path(runner.log_dir, 'vis_data/vis_image')
    names = {path.name for path in folder.iterdir()}
    assert {'gates_density_1.png', 'gates_connectivity_1.png', 'gates_variation_1.png'} <= names
    assert all(cv2.imread(str(path)).std() > 5 for path in folder.iterdir())
    (found,) = [s for s in scalars_of(runner) if any(k.startswith('gates/') for k in s)]
    assert found['step'] == 1
    assert {f'gates/neck.fpn_convs.0.conv/head{head}' for head in range(2)} <= set(found)
    assert all(0 <= value <= 1 for key, value in found.items() if key != 'step')


def test_gates_are_those_of_the_validation(tiny_cfg, drawn):
    runner = Runner.from_cfg(with_hook(tiny_cfg, max_images=3))
    runner.val()
    ((layers, images),) = drawn
    assert len(images) == 3
    with gates.GateRecorder(runner.model, 3, batches=2) as recorder, torch.no_grad():
        for batch in runner.val_dataloader:
            runner.model.val_step(batch)
    for layer, expected in zip(layers, recorder.take(), strict=True):
        assert layer.name == expected.name
        assert (layer.read == expected.read).all()
    dataset = runner.val_dataloader.dataset
    for index, image in enumerate(images):
        bgr = dataset[index]['inputs'].permute(1, 2, 0).numpy()
        assert abs(bgr[..., ::-1].mean(axis=(0, 1)) - image.mean(axis=(0, 1))).max() < 3


def test_training_is_left_as_it_is(repeatable_cfg, drawn, train):
    plain = train(repeatable_cfg)
    shown = train(with_hook(repeatable_cfg))
    assert drawn
    ours, others = shown.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(ours[key], others[key]) for key in others)
    keys = 'coco/bbox_mAP', 'mac_ratio'
    a, b = ([s[k] for s in scalars_of(r) for k in keys if k in s] for r in (shown, plain))
    assert a == b
    assert not any(m._gate_hooks for m in shown.model.modules() if hasattr(m, '_gate_hooks'))


def test_the_interval_counts_epochs_where_there_are_any(tiny_cfg, drawn):
    runner = Runner.from_cfg(with_hook(tiny_cfg, interval=2, max_images=1))
    hook = next(hook for hook in runner.hooks if isinstance(hook, GatePicturesHook))
    drawings = []
    for epoch, iteration in ((1, 10), (2, 20), (0, 40)):  # the last: a run of iterations alone
        loop = SimpleNamespace(epoch=epoch, iter=iteration)
        hook.before_train(SimpleNamespace(train_loop=loop))
        runner.val()
        drawings.append(len(drawn))
    assert drawings == [0, 1, 2]
    steps = [s['step'] for s in scalars_of(runner) if any(k.startswith('gates/') for k in s)]
    assert steps == [2, 40]


def test_other_processes_draw_nothing(tiny_cfg, drawn, monkeypatch):
    monkeypatch.setattr(gate_pictures_hook, 'is_main_process', lambda: False)
    Runner.from_cfg(with_hook(tiny_cfg)).val()
    assert drawn == []


def test_clusters_have_one_scalar_a_layer(tiny_cfg, drawn):
    tiny_cfg.model.backbone.type = 'SGCResNet'
    tiny_cfg.custom_hooks = []
    runner = Runner.from_cfg(with_hook(tiny_cfg))
    for name, mask in runner.model.named_buffers():
        if name.endswith('.mask'):
            mask[::2, ::2] = 0
    runner.val()
    (found,) = [s for s in scalars_of(runner) if any(k.startswith('gates/') for k in s)]
    assert set(found.values()) == {0.75, 0}  # the step is 0
    assert {key.rpartition('/')[2] for key in found} == {'head0', 'step'}


def test_a_dense_model_is_refused(tiny_cfg):
    tiny_cfg.model.backbone.type = 'ResNet'
    tiny_cfg.custom_hooks = []
    with pytest.raises(ValueError, match='RetinaNet has no grouped layers'):
        Runner.from_cfg(with_hook(tiny_cfg)).val()


@pytest.mark.parametrize('setting', [dict(interval=0), dict(max_images=0), dict(interval=1.5)])
def test_numbers_out_of_range_are_refused(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f'GatePicturesHook {name}={value}, expected an integer'):
        GatePicturesHook(**setting)
