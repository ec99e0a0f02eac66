"""tools/analysis_tools/plot_groups.py on small random detectors."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet_groupconv.analysis.recording import Recording
from mmdet_groupconv.classification import ImageFolder
from mmdet_groupconv.engine.launch import build_model

PROJECT = Path(__file__).resolve().parents[2]
DEMO = PROJECT / 'configs/demo/retinanet_msgc-r18_scenes.py'
CIFAR = PROJECT / 'configs/cifar10/msgc-r18-b16_10e_cifar10.py'


@pytest.fixture(scope='module')
def main(tool):
    return tool('analysis_tools/plot_groups').main


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Configs of a small detector and images of two sizes, by method."""
    folder = tmp_path_factory.mktemp('groups')
    for method in ('MSGC', 'FLGC', 'dense'):
        cfg = Config.fromfile(DEMO)
        in_backbone = method == 'MSGC'
        cfg.model.backbone.update(type='MSGCResNet' if in_backbone else 'ResNet', base_channels=8)
        if method == 'FLGC':
            cfg.model.neck.conv_cfg = dict(type='FLGCConv2d', groups=4)
        cfg.model.neck.in_channels = [8, 16, 32, 64]
        cfg.val_dataloader.dataset.update(data_root=str(folder), num_images=2, image_size=64)
        cfg.val_evaluator.ann_file = f'{folder}/annotations/val.json'
        cfg.dump(folder / f'{method}.py')
    (folder / 'images').mkdir()
    rng = np.random.default_rng(0)
    for name, size in (('b.png', (70, 50)), ('a.jpg', (48, 64))):
        cv2.imwrite(str(folder / 'images' / name), rng.integers(256, size=(*size, 3)))
    return folder


def plot(main, folder, out, method, *more):
    assert main([str(folder / f'{method}.py'), '--out', str(out), *more]) == 0
    found = json.loads((out / 'groups.json').read_text())
    return found, {path.stem for path in out.iterdir() if path.suffix != '.json'}


def test_pictures_and_figures_of_a_checkpoint(main, folder, tmp_path, capsys):
    torch.manual_seed(0)
    model = build_model(Config.fromfile(folder / 'MSGC.py'))
    for name, parameter in model.named_parameters():
        if name.endswith('conv.3.bias') and 'maskgen' in name:
            parameter.data.zero_()
    checkpoint = str(folder / 'weights.pth')
    torch.save(dict(state_dict=model.state_dict(), meta={}), checkpoint)
    found, pictures = plot(main, folder, tmp_path / 'new/out', 'MSGC', checkpoint)
    assert {'density', 'connectivity', 'variation', 'macs'} <= pictures
    assert found['number_of_images'] == 2
    assert len(found['amounts']) == 2
    layer = found['layers'][1]
    assert (layer['name'], layer['method']) == ('backbone.layer1.0.conv2', 'MSGC')
    assert layer['group_sizes'] == [2, 2, 2, 2]
    assert np.shape(layer['connectivity']) == (4, 8)
    assert layer['density'] == pytest.approx(np.mean(layer['connectivity'], axis=1), abs=1e-3)
    in_macs = {row['name']: row['density'] for row in found['macs']['layers']}
    for layer in found['layers']:  # counted for itself, by MacMeter
        assert layer['share_read'] == pytest.approx(in_macs[layer['name']], abs=1e-3)
    table = capsys.readouterr().out
    assert 'layer1.0.conv2' in table
    assert 'sometimes' in table


def test_images_of_a_folder_and_vector_graphics(main, folder, tmp_path):
    images = str(folder / 'images')
    found, pictures = plot(
        main, folder, tmp_path, 'FLGC', '--images', images, '--format', 'svg', '--number', '1'
    )
    assert found['number_of_images'] == 1
    assert pictures == {'density', 'connectivity', 'group_sizes', 'macs'}
    assert (tmp_path / 'group_sizes.svg').is_file()
    assert sum(found['layers'][0]['group_sizes']) == 64


def test_classifiers_read_class_folders(main, tmp_path, monkeypatch):
    monkeypatch.setattr(Recording, 'figures', lambda recording: {})  # they take seconds
    rng = np.random.default_rng(0)
    for name in range(10):
        (tmp_path / f'images/{name}').mkdir(parents=True)
        image = rng.integers(256, size=(32, 32, 3))
        cv2.imwrite(str(tmp_path / f'images/{name}/0.png'), image)
    arguments = ['--out', str(tmp_path / 'out'), '--images', str(tmp_path / 'images')]
    classes = []
    original = ImageFolder.__getitem__

    def getitem(dataset, index):
        classes.append(original(dataset, index)['data_samples'])
        return original(dataset, index)

    monkeypatch.setattr(ImageFolder, '__getitem__', getitem)
    assert main([str(CIFAR), *arguments, '--number', '3']) == 0
    found = json.loads((tmp_path / 'out/groups.json').read_text())
    assert found['number_of_images'] == 3
    assert classes == [0, 3, 6]  # of all, not the first


@pytest.mark.parametrize(
    ('method', 'more', 'message'),
    [
        ('dense', [], 'RetinaNet has no grouped layers'),
        ('MSGC', ['missing.pth'], 'checkpoint missing.pth not found'),
        ('MSGC', ['--number', '0'], '--number 0: expected 1 or more'),
        ('MSGC', ['--images', 'nowhere'], 'nowhere holds no image'),
        ('none', [], 'none.py not found'),
    ],
)
def test_a_wrong_argument_ends_in_one_line(main, folder, tmp_path, capsys, method, more, message):
    with pytest.raises(SystemExit, match='1'):
        main([str(folder / f'{method}.py'), '--out', str(tmp_path / 'out'), *more])
    error = capsys.readouterr().err
    assert message in error
    assert 'Traceback' not in error
    assert not (tmp_path / 'out').exists()


def test_a_file_is_no_folder(main, folder, tmp_path, capsys):
    (tmp_path / 'out').write_text('')
    with pytest.raises(SystemExit, match='1'):
        main([str(folder / 'MSGC.py'), '--out', str(tmp_path / 'out')])
    assert 'is a file, expected a folder' in capsys.readouterr().err
