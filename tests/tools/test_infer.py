"""tools/infer.py on an image, a folder and a video, with a small random detector."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet_groupconv.datasets.render import CLASSES
from mmdet_groupconv.engine.launch import build_model

PROJECT = Path(__file__).resolve().parents[2]
DEMO = PROJECT / 'configs/demo/retinanet_msgc-r18_scenes.py'
SMALL = {
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': [8, 16, 32, 64],
    'model.bbox_head.init_cfg': None,
    'model.test_cfg.score_thr': 0.0,
}


@pytest.fixture(scope='module')
def main(tool):
    return tool('infer').main


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A config, a checkpoint, two images, a video of three frames."""
    folder = tmp_path_factory.mktemp('infer')
    cfg = Config.fromfile(DEMO)
    cfg.merge_from_dict(SMALL)
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    state = build_model(cfg).state_dict()
    torch.save(dict(state_dict=state, meta={}), folder / 'weights.pth')
    classes = [f'class {n}' for n in range(len(CLASSES))]
    meta = dict(dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=state, meta=meta), folder / 'named.pth')
    (folder / 'images').mkdir()
    rng = np.random.default_rng(0)
    for name, size in (('b.png', (70, 50)), ('a.jpg', (48, 64))):
        cv2.imwrite(str(folder / 'images' / name), rng.integers(256, size=(*size, 3)))
    codec = cv2.VideoWriter_fourcc(*'mp4v')
    video = cv2.VideoWriter(str(folder / 'clip.mp4'), codec, 5.0, (64, 48))
    for _ in range(3):
        video.write(rng.integers(256, size=(48, 64, 3), dtype=np.uint8))
    video.release()
    return folder


@pytest.fixture
def infer(main, folder, tmp_path):
    """``infer(source, *more)``: the status, and the predictions where they were written."""

    def infer(source, *more, weights='weights.pth'):
        files = [str(folder / name) for name in (source, 'config.py', weights)]
        status = main([*files, '--out', str(tmp_path), '--device', 'cpu', *more])
        return status, json.loads((tmp_path / 'predictions.json').read_text())

    return infer


def boxes(predictions):
    return [(a['image_id'], a['category_id'], a['bbox'], a['score']) for a in predictions]


def test_a_folder_becomes_pictures_and_a_coco_file(infer, tmp_path):
    status, predictions = infer('images', '--score-thr', '0')
    assert status == 0
    assert [image['file_name'] for image in predictions['images']] == ['a.jpg', 'b.png']
    assert (predictions['images'][1]['height'], predictions['images'][1]['width']) == (70, 50)
    assert {a['image_id'] for a in predictions['annotations']} == {1, 2}
    painted = cv2.imread(str(tmp_path / 'pictures/b.png'))
    assert painted.shape == (70, 50, 3)


def test_boxes_are_in_the_images_own_pixels_as_corner_and_size(infer):
    _, predictions = infer('images/a.jpg', '--score-thr', '0')
    for annotation in predictions['annotations']:
        x, y, width, height = annotation['bbox']
        assert -0.1 <= x <= x + width <= 64.1
        assert -0.1 <= y <= y + height <= 48.1
        assert annotation['area'] == pytest.approx(width * height, abs=1)


@pytest.mark.parametrize(
    ('weights', 'name'), [('weights.pth', CLASSES[1]), ('named.pth', 'class 1')]
)
def test_names_are_the_checkpoints_or_else_the_configs(infer, weights, name):
    _, predictions = infer('images/a.jpg', weights=weights)
    assert len(predictions['categories']) == len(CLASSES)
    assert predictions['categories'][1] == dict(id=2, name=name)


def test_the_threshold_leaves_boxes_out(infer):
    _, everything = infer('images/a.jpg', '--score-thr', '0')
    scores = sorted(a['score'] for a in everything['annotations'])
    middle = scores[len(scores) // 2]
    _, some = infer('images/a.jpg', '--score-thr', str(middle))
    assert 0 < len(some['annotations']) < len(scores)


def test_compact_finds_the_same(infer):
    _, eager = infer('images/a.jpg', '--score-thr', '0')
    _, compact = infer('images/a.jpg', '--score-thr', '0', '--compact')
    for one, other in zip(eager['annotations'], compact['annotations'], strict=True):
        assert one['bbox'] == pytest.approx(other['bbox'], abs=0.05)


def test_bf16_finds_about_the_same(infer):
    _, eager = infer('images/a.jpg', '--score-thr', '0')
    _, found = infer('images/a.jpg', '--score-thr', '0', '--compact', '--precision', 'bf16')
    ones, others = ([a['score'] for a in f['annotations'][:5]] for f in (eager, found))
    assert ones != others
    assert ones == pytest.approx(others, abs=0.02)


def test_a_precision_without_compact_is_refused(infer, capsys):
    with pytest.raises(SystemExit):
        infer('images/a.jpg', '--precision', 'bf16')
    assert '--precision bf16, expected --compact with it' in capsys.readouterr().err


def test_a_video_becomes_a_video(infer, tmp_path):
    status, predictions = infer('clip.mp4')
    assert status == 0
    assert len(predictions['images']) == 3
    video = cv2.VideoCapture(str(tmp_path / 'clip.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ['clip.mp4', 'predictions.json']


def test_a_damaged_image_is_named_and_the_others_are_done(infer, folder, capsys):
    damaged = folder / 'images/damaged.jpg'
    damaged.write_bytes(b'')
    try:
        status, predictions = infer('images')
    finally:
        damaged.unlink()
    assert status == 1
    assert 'damaged.jpg' in capsys.readouterr().err
    assert [image['file_name'] for image in predictions['images']] == ['a.jpg', 'b.png']


@pytest.mark.parametrize(
    ('source', 'more', 'message'),
    [
        ('missing.jpg', (), 'missing.jpg not found'),
        ('weights.mp4', (), 'weights.mp4 can not be read as a video'),
        ('images', ('--score-thr', '2'), '--score-thr 2.0: expected a score from 0 to 1'),
    ],
)
def test_a_wrong_argument_ends_in_one_line(infer, folder, capsys, source, more, message):
    (folder / 'weights.mp4').write_bytes(b'no video')
    with pytest.raises(SystemExit, match='1'):
        infer(source, *more)
    error = capsys.readouterr().err
    assert message in error
    assert 'Traceback' not in error
