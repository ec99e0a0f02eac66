import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS
from pycocotools.coco import COCO

import mmdet_groupconv.datasets.scene_files as files_module
from mmdet_groupconv.datasets import ScenesDataset
from mmdet_groupconv.datasets.render import CLASSES, render_scene
from mmdet_groupconv.datasets.scene_files import prepare_scenes

SIZE = 96


def build(root: Path, **changes) -> ScenesDataset:
    # mmengine collects garbage for every serialised data set, which takes most of a test's time.
    options = {'num_images': 4, 'image_size': SIZE, 'serialize_data': False, **changes}
    return ScenesDataset(data_root=str(root), **options)


def image_bytes(dataset: ScenesDataset) -> list[bytes]:
    return [Path(dataset.get_data_info(i)['img_path']).read_bytes() for i in range(len(dataset))]


def files_with_times(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob('*')}


def assert_complete(ann_file: Path, split: str, num_images: int) -> None:
    content = json.loads(ann_file.read_text())
    assert len(content['images']) == num_images
    for image in content['images']:
        pixels = cv2.imread(str(ann_file.parent.parent / split / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3)


def test_registered_in_mmdetection(tmp_path):
    dataset = DATASETS.build(
        {'type': 'ScenesDataset', 'data_root': str(tmp_path), 'num_images': 2, 'image_size': SIZE}
    )
    assert isinstance(dataset, CocoDataset)
    assert len(dataset) == 2
    assert dataset.metainfo['classes'] == CLASSES
    assert len(dataset.metainfo['palette']) == len(CLASSES)


def test_equal_seed_gives_equal_bytes(tmp_path):
    first, second = build(tmp_path / 'a', seed=7), build(tmp_path / 'b', seed=7)
    assert image_bytes(first) == image_bytes(second)
    assert Path(first.ann_file).read_bytes() == Path(second.ann_file).read_bytes()


def test_different_seeds_share_no_image(tmp_path):
    first, second = build(tmp_path / 'a', seed=7), build(tmp_path / 'b', seed=8)
    assert not set(image_bytes(first)) & set(image_bytes(second))


def test_smaller_set_is_a_prefix_of_a_larger_one(tmp_path):
    small, large = build(tmp_path / 'a', num_images=3), build(tmp_path / 'b', num_images=5)
    assert image_bytes(small) == image_bytes(large)[:3]
    for index in range(3):
        assert small.get_data_info(index)['instances'] == large.get_data_info(index)['instances']


def test_ground_truth_is_that_of_the_rendered_scene(tmp_path):
    dataset = build(tmp_path, num_images=3, seed=7)
    rng = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(0, 2)))
    scene = render_scene(rng, SIZE, SIZE)
    info = dataset.get_data_info(2)
    assert [i['bbox_label'] for i in info['instances']] == scene.labels.tolist()
    assert [i['bbox'] for i in info['instances']] == scene.boxes.tolist()
    difference = cv2.absdiff(cv2.imread(info['img_path']), scene.image)
    assert difference.mean() < 8


def test_train_and_val_share_no_image(tmp_path):
    train, val = build(tmp_path, split='train'), build(tmp_path, split='val')
    assert not set(image_bytes(train)) & set(image_bytes(val))


def test_val_leaves_train_alone(tmp_path):
    train = build(tmp_path, split='train')
    before = image_bytes(train)
    build(tmp_path, split='val')
    assert image_bytes(build(tmp_path, split='train')) == before


def test_size_may_be_width_and_height(tmp_path):
    info = build(tmp_path, image_size=[128, 72]).get_data_info(0)
    assert (info['width'], info['height']) == (128, 72)
    assert cv2.imread(info['img_path']).shape == (72, 128, 3)


def test_same_parameters_write_nothing_again(tmp_path):
    build(tmp_path)
    before = files_with_times(tmp_path)
    build(tmp_path)
    assert files_with_times(tmp_path) == before


@pytest.mark.parametrize(
    'change', [{'seed': 1}, {'num_images': 5}, {'image_size': 64}, {'image_size': (96, 64)}]
)
def test_changed_parameters_make_the_set_anew(tmp_path, change):
    build(tmp_path)
    changed = build(tmp_path, **change)
    fresh = build(tmp_path / 'fresh', **change)
    assert image_bytes(changed) == image_bytes(fresh)
    assert Path(changed.ann_file).read_bytes() == Path(fresh.ann_file).read_bytes()


def test_new_generator_version_makes_the_set_anew(tmp_path, monkeypatch):
    before = Path(build(tmp_path).get_data_info(0)['img_path'])
    monkeypatch.setattr(files_module, 'GENERATOR_VERSION', 99)
    assert Path(build(tmp_path).get_data_info(0)['img_path']) != before


def test_changed_parameters_leave_a_reader_its_images(tmp_path):
    reader = build(tmp_path)
    before = image_bytes(reader)
    build(tmp_path, seed=1)
    assert image_bytes(reader) == before


def test_earlier_parameters_bring_the_earlier_set_back(tmp_path):
    ann_file = Path(build(tmp_path).ann_file)
    before = ann_file.read_bytes()
    build(tmp_path, seed=1)
    build(tmp_path)
    assert ann_file.read_bytes() == before


def test_lost_images_are_made_again(tmp_path):
    dataset = build(tmp_path)
    before = image_bytes(dataset)
    Path(dataset.get_data_info(0)['img_path']).parent.rename(tmp_path / 'elsewhere')
    assert image_bytes(build(tmp_path)) == before


def test_two_processes_at_once_make_one_good_set(tmp_path):
    script = (
        'import sys\n'
        'from mmdet_groupconv.datasets.scene_files import prepare_scenes\n'
        'print("ready", flush=True)\n'
        'sys.stdin.readline()\n'
        'prepare_scenes(sys.argv[1], "train", 40, 96, 0)\n'
    )
    package_root = Path(files_module.__file__).parents[2]
    environment = {**os.environ, 'PYTHONPATH': str(package_root), 'OMP_NUM_THREADS': '1'}
    with subprocess.Popen(
        [sys.executable, '-c', script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as other:
        while other.stdout.readline() not in ('ready\n', ''):
            pass
        other.stdin.write('\n')
        other.stdin.flush()
        prepare_scenes(tmp_path, 'train', 40, SIZE, 0)
        other.communicate(timeout=60)
    assert other.returncode == 0
    assert_complete(tmp_path / 'annotations' / 'train.json', 'train', 40)
    assert len(list((tmp_path / 'train').iterdir())) == 1


def test_slower_process_keeps_the_set_of_the_faster(tmp_path, monkeypatch):
    original = files_module.render_scene
    times = {}

    def overtaken(*args):
        monkeypatch.setattr(files_module, 'render_scene', original)
        prepare_scenes(tmp_path, 'train', 3, SIZE, 0)
        times.update(files_with_times(tmp_path / 'train' / 'v1-seed0-96x96-n3'))
        return original(*args)

    monkeypatch.setattr(files_module, 'render_scene', overtaken)
    prepare_scenes(tmp_path, 'train', 3, SIZE, 0)
    assert files_with_times(tmp_path / 'train' / 'v1-seed0-96x96-n3') == times
    assert len(list((tmp_path / 'train').iterdir())) == 1


def interrupt_while_making(root: Path, monkeypatch) -> None:
    """Leave what a process leaves that is killed, so gets no chance to clean up, at image 2."""
    original = files_module.render_scene
    calls = []

    def dying(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(files_module, 'render_scene', dying)
        patch.setattr(files_module.shutil, 'rmtree', lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            build(root)


def test_half_written_set_is_not_picked_up(tmp_path, monkeypatch):
    interrupt_while_making(tmp_path, monkeypatch)
    (left,) = (tmp_path / 'train').iterdir()
    assert len(list(left.iterdir())) == 2
    assert not (tmp_path / 'annotations' / 'train.json').exists()
    dataset = build(tmp_path)
    assert_complete(Path(dataset.ann_file), 'train', 4)
    assert image_bytes(dataset) == image_bytes(build(tmp_path / 'fresh'))


@pytest.mark.parametrize(('age_seconds', 'kept'), [(60, True), (7200, False)])
def test_only_old_leftovers_are_removed(tmp_path, monkeypatch, age_seconds, kept):
    interrupt_while_making(tmp_path, monkeypatch)
    (left,) = (tmp_path / 'train').iterdir()
    os.utime(left, (time.time() - age_seconds,) * 2)
    build(tmp_path)
    assert left.exists() == kept


def test_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(files_module, 'render_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    assert not list((tmp_path / 'train').iterdir())


def test_annotations_are_valid_coco(tmp_path):
    content = json.loads(Path(build(tmp_path).ann_file).read_text())
    assert set(content) == {'info', 'licenses', 'images', 'annotations', 'categories'}
    assert [image['id'] for image in content['images']] == [1, 2, 3, 4]
    count = len(content['annotations'])
    assert [item['id'] for item in content['annotations']] == list(range(1, count + 1))
    assert [item['name'] for item in content['categories']] == list(CLASSES)
    assert [item['id'] for item in content['categories']] == list(range(1, len(CLASSES) + 1))
    for item in content['annotations']:
        x, y, width, height = item['bbox']
        assert 0 <= x < x + width <= SIZE
        assert 0 <= y < y + height <= SIZE
        assert 0 < item['area'] <= width * height
        assert item['iscrowd'] == 0


def test_pycocotools_finds_every_annotation(tmp_path):
    dataset = build(tmp_path)
    coco = COCO(dataset.ann_file)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        boxes = [a['bbox'] for a in coco.loadAnns(coco.getAnnIds(imgIds=info['img_id']))]
        assert [i['bbox'] for i in info['instances']] == [
            [x, y, x + width, y + height] for x, y, width, height in boxes
        ]


def test_perfect_predictions_score_one(tmp_path):
    dataset = build(tmp_path, num_images=30, split='val', test_mode=True)
    metric = CocoMetric(ann_file=dataset.ann_file, metric='bbox')
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        predictions = {
            'bboxes': np.array([i['bbox'] for i in info['instances']]),
            'labels': np.array([i['bbox_label'] for i in info['instances']]),
            'scores': np.ones(len(info['instances'])),
        }
        metric.process(
            {},
            [
                {
                    'img_id': info['img_id'],
                    'ori_shape': (SIZE, SIZE),
                    'pred_instances': {k: torch.as_tensor(v) for k, v in predictions.items()},
                }
            ],
        )
    assert metric.evaluate(size=len(dataset))['coco/bbox_mAP'] == 1.0


def test_ordinary_loading_pipeline_reads_the_images(tmp_path):
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations', 'with_bbox': True}]
    dataset = build(tmp_path, pipeline=pipeline)
    sample = dataset[0]
    assert sample['img'].shape == (SIZE, SIZE, 3)
    assert len(sample['gt_bboxes']) == len(dataset.get_data_info(0)['instances'])


def test_classes_may_be_narrowed_as_in_coco(tmp_path):
    dataset = build(tmp_path, num_images=12, metainfo={'classes': ('star',)})
    labels = {i['bbox_label'] for n in range(12) for i in dataset.get_data_info(n)['instances']}
    assert labels == {0}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'split': 'test'}, r"split: expected one of .*'train', 'val'.*, found 'test'"),
        ({'num_images': 0}, 'num_images: expected an integer >= 1, found 0'),
        ({'num_images': 2.5}, 'num_images: expected an integer >= 1, found 2.5'),
        ({'seed': -1}, 'seed: expected an integer >= 0, found -1'),
        ({'image_size': 63}, 'image_size: expected an integer >= 64 .*, found 63'),
        ({'image_size': 96.0}, 'image_size: expected an integer >= 64 .*, found 96.0'),
        ({'image_size': (96, 32)}, r'image_size: expected .*, found \(96, 32\)'),
        ({'image_size': (96, 96, 3)}, r'image_size: expected .*, found \(96, 96, 3\)'),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **change)
    assert not list(tmp_path.iterdir())


def test_data_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'data_root: expected a folder to write to, found .*file'):
        build(tmp_path / 'file')


def test_somebody_elses_annotations_are_not_replaced(tmp_path):
    other = tmp_path / 'annotations' / 'train.json'
    other.parent.mkdir()
    other.write_text('{"info": {}, "images": []}')
    with pytest.raises(ValueError, match='data_root: expected an annotation file made by Scenes'):
        build(tmp_path)
    assert other.read_text() == '{"info": {}, "images": []}'
