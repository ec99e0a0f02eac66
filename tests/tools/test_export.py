"""tools/export.py on small detectors."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

import mmdet_groupconv
from mmdet_groupconv.checkpoints import read_state_dict
from mmdet_groupconv.engine.launch import build_model

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = PROJECT / 'configs/retinanet/retinanet_sgc-r18_fpn_12e_bccd.py'
DEMO = PROJECT / 'configs/demo/retinanet_msgc-r18_scenes.py'
SMALL = [
    'model.backbone.base_channels=8',
    'model.neck.in_channels=[8,16,32,64]',
    'model.neck.out_channels=16',
    'model.bbox_head.in_channels=16',
    'model.bbox_head.feat_channels=16',
]


def small(config):
    cfg = Config.fromfile(config)
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.model.bbox_head.update(in_channels=16, feat_channels=16)
    return cfg


def save_weights(config, path):
    """A checkpoint of a fresh detector, SGC layers in groups."""
    torch.manual_seed(0)
    state = build_model(small(config)).state_dict()
    for key in (key for key in state if key.endswith('.mask')):
        of_filter, of_channel = (torch.randint(4, (size,)) for size in state[key].shape[:2])
        state[key].copy_(of_filter[:, None] == of_channel)
    torch.save(dict(state_dict=state, meta={}), path)
    return path


@pytest.fixture(scope='module')
def module(tool):
    return tool('export')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_weights(CONFIG, tmp_path_factory.mktemp('weights') / 'sgc.pth')


def run(module, checkpoint, out, *options, config=CONFIG, settings=SMALL):
    shape = [] if '--shape' in options else ['--shape', '64', '96']
    arguments = [str(config), str(checkpoint), '--out', str(out), *shape, *map(str, options)]
    return module.main([*arguments, '--cfg-options', *settings])


@pytest.fixture
def untimed(monkeypatch):
    """The first way of each layer and the grouped graph are taken for the fastest."""
    from mmdet_groupconv.deploy import export, plan

    for part in (export, plan):
        monkeypatch.setattr(part, 'race', lambda models, *_: [float(i) for i in range(len(models))])


def outputs_of(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {'images': images.numpy()}), strict=True))


@pytest.fixture(scope='module')
def detector(checkpoint):
    model = build_model(small(CONFIG))
    model.load_state_dict(read_state_dict(checkpoint))
    return model.eval()


@torch.no_grad()
def maps_of(detector, part, images):
    """What a file of a part has to compute, by name."""
    if part == 'backbone':
        maps = dict(feature=detector.backbone(images))
    elif part == 'neck':
        maps = dict(feature=detector.extract_feat(images))
    else:
        scores, boxes = detector.bbox_head(detector.extract_feat(images))
        maps = dict(cls_score=scores, bbox_pred=boxes)
    return {f'{name}_{i}': y for name, levels in maps.items() for i, y in enumerate(levels)}


@pytest.mark.parametrize('part', ['backbone', 'neck', 'head'])
def test_the_file_computes_the_part_that_is_asked_for(
    module, checkpoint, detector, tmp_path, capsys, part
):
    out = tmp_path / 'new.onnx'
    assert run(module, checkpoint, out, '--part', part) == 0
    images = torch.randn(2, 3, 75, 130)
    expected, found = maps_of(detector, part, images), outputs_of(out, images)
    assert list(found) == list(expected)
    for name, y in expected.items():
        scale = float(y.abs().max())
        torch.testing.assert_close(torch.from_numpy(found[name]), y, rtol=0, atol=1e-3 * scale)
    printed = capsys.readouterr().out
    for name in expected:
        assert name in printed
    assert 'largest difference from PyTorch' in printed
    assert 'with dense convolutions' in printed
    assert sorted(tmp_path.iterdir()) == [out.with_suffix('.json'), out]


def test_the_file_tells_what_it_is_of_and_how_images_are_normalised(
    module, checkpoint, tmp_path, untimed
):
    out = tmp_path / 'new.onnx'
    run(module, checkpoint, out, '--part', 'backbone')
    kept = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    settings = Config.fromfile(CONFIG).model.data_preprocessor
    assert kept == dict(
        config=str(CONFIG),
        checkpoint=str(checkpoint),
        runtime='onnxruntime',
        precision='fp32',
        mean=str(settings.mean),
        std=str(settings.std),
        bgr_to_rgb=str(settings.bgr_to_rgb),
        pad_size_divisor=str(settings.pad_size_divisor),
    )


def test_the_file_is_checked_on_an_image(module, checkpoint, tmp_path, monkeypatch, untimed):
    from mmdet_groupconv.deploy import export

    path, out = tmp_path / 'image.png', tmp_path / 'new.onnx'
    cv2.imwrite(str(path), np.full((40, 50, 3), 200, np.uint8))
    seen = []
    compare = export.compare

    def watch(model, part, path, image, *args):
        seen.append(image)
        return compare(model, part, path, image, *args)

    monkeypatch.setattr(export, 'compare', watch)
    assert run(module, checkpoint, out, '--image', path, '--part', 'backbone') == 0
    assert [tuple(image.shape) for image in seen] == [(1, 3, 64, 96), (1, 3, 64, 64)]
    assert all(float(image[0, 0, 0, 0]) > 1 for image in seen)  # bright
    assert out.is_file()


def test_gates_by_image_can_be_frozen(module, tmp_path, capsys, untimed):
    checkpoint, out = save_weights(DEMO, tmp_path / 'msgc.pth'), tmp_path / 'new.onnx'
    settings = SMALL + [
        f'{loader}_dataloader.{key}'
        for loader in ('train', 'test')
        for key in (
            'num_workers=0',
            'persistent_workers=False',
            'batch_size=2',
            'dataset.num_images=4',
            'dataset.image_size=64',
            f'dataset.data_root={tmp_path}/scenes',
        )
    ]
    options = dict(config=DEMO, settings=settings)
    assert run(module, checkpoint, out, '--part', 'backbone', **options) == 0
    assert 'one image at a time; see also --freeze' in ' '.join(capsys.readouterr().out.split())
    freeze = ['--part', 'backbone', '--freeze', '0.5', '--calibrate', '1']
    assert run(module, checkpoint, out, *freeze, **options) == 0
    assert 'with dense convolutions' in capsys.readouterr().out
    assert len(outputs_of(out, torch.randn(2, 3, 64, 64))) == 4


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_a_detector_s_file_runs_without_this_package(
    module, checkpoint, detector, tmp_path, capsys, untimed, runtime
):
    pytest.importorskip(runtime)
    (tmp_path / 'images').mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'images/noise.png'), pixels)
    (tmp_path / 'images/broken.png').write_text('no image')
    out = tmp_path / 'detector.onnx'
    assert run(module, checkpoint, out) == 0
    assert 'detect.py' in capsys.readouterr().out
    kept = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert json.loads(kept['classes']) == ['Platelets', 'RBC', 'WBC']
    assert json.loads(kept['scale']) == [320, 320]
    assert json.loads(kept['keep_ratio']) is True
    # Nothing but these may be imported, from wherever they are installed.
    alone = (
        'import sys, runpy\n'
        f'import numpy, PIL.Image, PIL.ImageDraw, {runtime}\n'
        'for name in ("torch", "mmdet", "mmcv", "mmengine", "mmdet_groupconv", "cv2"):\n'
        '    sys.modules[name] = None\n'
        'sys.argv = sys.argv[1:]\n'
        'runpy.run_path(sys.argv[0], run_name="__main__")\n'
    )
    arguments = [tmp_path / 'detect.py', out, tmp_path / 'images', '--out', tmp_path / 'found']
    options = ['--score-thr', '0', '--runtime', runtime]
    command = [sys.executable, '-c', alone, *map(str, arguments), *options]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert 'broken.png is left out' in ended.stderr
    found = json.loads((tmp_path / 'found/predictions.json').read_text())
    assert [image['file_name'] for image in found['images']] == ['noise.png']
    assert (tmp_path / 'found/pictures/noise.jpg').is_file()
    assert [category['name'] for category in found['categories']] == ['Platelets', 'RBC', 'WBC']
    for box in found['annotations']:
        left, top, width, height = box['bbox']
        assert 0 <= left <= left + width <= 64.1
        assert 0 <= top <= top + height <= 48.1


def test_a_file_that_is_no_detector_s_is_refused_by_the_script(
    module, checkpoint, tmp_path, untimed
):
    out = tmp_path / 'maps.onnx'
    assert run(module, checkpoint, out, '--part', 'neck') == 0
    assert not (tmp_path / 'detect.py').exists()
    from mmdet_groupconv.deploy import DETECT

    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((32, 32, 3), np.uint8))
    command = [sys.executable, DETECT, out, tmp_path / 'a.png', '--out', tmp_path / 'found']
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert ended.returncode == 1
    assert 'does not say what it detects' in ended.stderr
    assert not (tmp_path / 'found').exists()


@pytest.mark.parametrize(
    ('options', 'number'),
    [
        (['int8'], [64]),
        (['bf16'], [8]),
        (['bf16', '--part', 'head'], []),
        (['fp32'], []),
    ],
)
def test_no_more_images_are_read_than_are_looked_at(
    module, checkpoint, tmp_path, monkeypatch, options, number
):
    pytest.importorskip('openvino')
    from mmdet_groupconv import deploy

    read, how = [], ['--runtime', 'openvino', '--precision', *options]
    monkeypatch.setattr(module, 'calibration_pixels', lambda _, number: read.append(number) or [])
    monkeypatch.setattr(deploy, 'export_onnx', lambda *_, **__: sys.exit())
    with pytest.raises(SystemExit):
        run(module, checkpoint, tmp_path / 'a.onnx', *how)
    assert read == number


@pytest.fixture
def no_work(module, monkeypatch):
    """Neither calibrating nor exporting is reached."""

    def unexpected(*_, **__):
        raise AssertionError('work was begun')

    monkeypatch.setattr(module, 'freeze_gates', unexpected)
    from mmdet_groupconv import deploy

    monkeypatch.setattr(deploy, 'export_onnx', unexpected)


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        (['--freeze', '2'], '--freeze 2.0: expected a share from 0 to 1'),
        (['--shape', '1', '1'], '--shape 1 1, expected 64 or more each'),
        (['--threads', '0'], '--threads 0, expected 1 or more'),
        (['--precision', 'bf16'], 'precision bf16 in onnxruntime, expected fp32 or int8'),
        (['--image', 'nowhere.jpg', '--freeze', '0.5'], 'nowhere.jpg'),
        (['--image', __file__, '--freeze', '0.5'], f'--image {__file__} is no image'),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    module, checkpoint, tmp_path, capsys, no_work, options, complaint
):
    assert_refused(module, capsys, complaint, checkpoint, tmp_path / 'new.onnx', *options)
    assert list(tmp_path.iterdir()) == []


def test_a_script_of_the_user_s_is_not_written_over(module, checkpoint, tmp_path, capsys, no_work):
    (tmp_path / 'detect.py').write_text('mine')
    assert_refused(module, capsys, 'detect.py is another file', checkpoint, tmp_path / 'new.onnx')
    assert (tmp_path / 'detect.py').read_text() == 'mine'


def test_wrong_files_are_refused_before_any_work(module, checkpoint, tmp_path, capsys, no_work):
    out = tmp_path / 'new.onnx'
    deeper = [*SMALL, 'model.backbone.depth=34']
    for source, target, more, complaint in (
        (checkpoint, tmp_path / 'no/new.onnx', {}, 'no not found'),
        (checkpoint, tmp_path, {}, 'is a folder, expected a file'),
        (checkpoint, checkpoint, {}, 'is the input itself, expected another file'),
        (tmp_path / 'no.pth', out, {}, 'no.pth not found'),
        (checkpoint, out, dict(config='no.py'), 'config no.py not found'),
        (checkpoint, out, dict(settings=deeper), 'sgc.pth does not fit RetinaNet'),
    ):
        assert_refused(module, capsys, complaint, source, target, **more)
    assert list(tmp_path.iterdir()) == []


def assert_refused(module, capsys, complaint, *arguments, **more):
    with pytest.raises(SystemExit) as info:
        run(module, *arguments, **more)
    assert info.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert complaint in line


def test_a_detector_without_gates_can_not_be_frozen(module, checkpoint, tmp_path, capsys):
    out = tmp_path / 'new.onnx'
    assert_refused(module, capsys, 'has no gates by image', checkpoint, out, '--freeze', '0.5')


def test_a_missing_package_is_named(module, checkpoint, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith('mmdet_groupconv.deploy')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(mmdet_groupconv, 'deploy', raising=False)
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    complaint = "onnxruntime not found, it comes with: pip install 'mmdet_groupconv[export]'"
    assert_refused(module, capsys, complaint, checkpoint, tmp_path / 'new.onnx')
