"""The tool on a small set on disk, and the same check before a run."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmdet_groupconv.engine.data_inputs import check_data, data_reports


@pytest.fixture(scope='module')
def main(tool):
    return tool('check_dataset').main


def encoded(image, form='JPEG'):
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))


@pytest.fixture
def data(tmp_path):
    """Three images of 64x48 with a box each; returns the folder, with config.py in it."""
    (tmp_path / 'images').mkdir()
    for number in range(3):
        (tmp_path / f'images/{number}.jpg').write_bytes(encoded(NOISE))
    images = [dict(id=n, file_name=f'{n}.jpg', width=64, height=48) for n in range(3)]
    boxes = [
        dict(id=n + 1, image_id=n, category_id=1, bbox=[4, 4, 20, 10], area=200, iscrowd=0)
        for n in range(3)
    ]
    write(tmp_path, images, boxes)
    (tmp_path / 'config.py').write_text(
        f"""
dataset = dict(
    type='CocoDataset', data_root='{tmp_path}', ann_file='file.json',
    data_prefix=dict(img='images'),
    metainfo=dict(classes=('cat',)), pipeline=[dict(type='LoadImageFromFile')])
train_dataloader = dict(dataset=dataset)
"""
    )
    return tmp_path


def write(folder, images, boxes, name='file.json', categories=('cat',)):
    categories = [dict(id=n + 1, name=name) for n, name in enumerate(categories)]
    content = dict(images=images, annotations=boxes, categories=categories)
    (folder / name).write_text(json.dumps(content))


def config(data):
    return Config.fromfile(data / 'config.py')


def test_sound_data_exit_with_0_and_are_counted(main, data, capsys):
    assert main([str(data / 'config.py'), '--full', '--json', str(data / 'out.json')]) == 0
    assert 'cat 3' in capsys.readouterr().out
    (report,) = json.loads((data / 'out.json').read_text())
    assert report['problems'] == []
    assert report['counts']['images'] == 3
    check_data(config(data), ('train',))


def test_errors_exit_with_1_and_are_listed(main, data, capsys):
    (data / 'images/1.jpg').unlink()
    assert main([str(data / 'config.py'), '--json', str(data / 'out.json')]) == 1
    (problem,) = json.loads((data / 'out.json').read_text())[0]['problems']
    assert problem['kind'] == 'image file not found'
    assert problem['examples'] == [str(data / 'images/1.jpg')]
    assert 'image file not found' in capsys.readouterr().out
    with pytest.raises(ValueError, match=r'1\.jpg \(tools/check_dataset\.py CONFIG lists all\)'):
        check_data(config(data), ('train',))


def test_no_half_report_stays_behind(main, data, monkeypatch):
    def fail(self, text):
        self.write_bytes(b'half')
        raise OSError(28, 'No space left on device', str(self))

    monkeypatch.setattr(Path, 'write_text', fail)
    with pytest.raises(SystemExit):
        main([str(data / 'config.py'), '--json', str(data / 'out.json')])
    assert not list(data.glob('*out.json*'))


BROKEN = {
    'cut short': encoded(NOISE)[:900],
    'cut at the end': encoded(NOISE)[:-10],
    'empty': b'',
    'text': b'no image',
    'zeros': bytes(500),
    'png cut short': encoded(NOISE, 'PNG')[:3000],
    'another size': encoded(NOISE.resize((48, 64))),
    '1x1': encoded(NOISE.resize((1, 1))),
    'wide': encoded(Image.new('RGB', (20000, 8))),
}


@pytest.mark.parametrize('case', BROKEN)
def test_full_names_images_that_can_not_be_trained_on(data, case):
    (data / 'images/1.jpg').write_bytes(BROKEN[case])
    check_data(config(data), ('train',))  # images are not opened
    report = next(data_reports(config(data), ('train',), full=True))
    assert str(data / 'images/1.jpg') in report.error_line


LEGAL = {
    'grayscale': encoded(NOISE.convert('L')),
    'cmyk': encoded(NOISE.convert('CMYK')),
    'palette': encoded(NOISE.convert('P'), 'PNG'),
    'alpha': encoded(NOISE.convert('RGBA'), 'PNG'),
    '16 bits': encoded(Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)), 'PNG'),
    'webp': encoded(NOISE, 'WEBP'),
}


@pytest.mark.parametrize('case', LEGAL)
def test_whatever_the_loader_turns_into_three_channels_is_fine(data, case):
    (data / 'images/1.jpg').write_bytes(LEGAL[case])
    assert next(data_reports(config(data), ('train',), full=True)).problems == []


@pytest.mark.parametrize('size', [(1, 1), (20000, 8)])
def test_unusual_sizes_are_fine_where_they_are_annotated_so(data, size):
    (data / 'images/1.jpg').write_bytes(encoded(NOISE.resize(size)))
    content = json.loads((data / 'file.json').read_text())
    content['images'][1].update(width=size[0], height=size[1])
    content['annotations'].pop(1)
    (data / 'file.json').write_text(json.dumps(content))
    assert next(data_reports(config(data), ('train',), full=True)).problems == []


CONFIGS = {
    'no file': (dict(ann_file='no.json'), 'no.json of train_dataloader not found'),
    'no ann_file': (dict(ann_file=''), 'no ann_file'),
    'no prefix': (dict(data_prefix=dict(img=None)), 'expected dict(img=FOLDER)'),
    'no folder': (dict(data_prefix=dict(img='no')), 'image folder not found'),
    'a string of classes': (dict(metainfo=dict(classes='cat')), "the string 'cat', expected a"),
    'a class twice': (dict(metainfo=dict(classes=('cat', 'cat'))), "has 'cat' twice"),
    'a class too many': (dict(metainfo=dict(classes=('cat', 'cow'))), "'cow' not among the cat"),
    'the classes of COCO': (dict(metainfo=None), "'person' not among the categories ('cat')"),
    'all filtered': (dict(filter_cfg=dict(min_size=50)), 'none of 3 images is left by filter_cfg'),
}  # fmt: skip


@pytest.mark.parametrize('case', CONFIGS)
def test_faults_of_the_config_are_named(data, case):
    settings, message = CONFIGS[case]
    cfg = config(data)
    cfg.train_dataloader.dataset.update(settings)
    with pytest.raises((ValueError, FileNotFoundError)) as info:
        check_data(cfg, ('train',))
    assert message in str(info.value)


WRAPPERS = [
    lambda d: dict(type='RepeatDataset', times=2, dataset=d),
    lambda d: dict(type='ConcatDataset', datasets=[d]),
    lambda d: dict(type='MultiImageMixDataset', dataset=d, pipeline=[]),
]


@pytest.mark.parametrize('wrap', WRAPPERS)
def test_wrapped_data_sets_are_checked(data, wrap):
    (data / 'images/1.jpg').unlink()
    cfg = config(data)
    cfg.train_dataloader.dataset = wrap(cfg.train_dataloader.dataset)
    with pytest.raises(ValueError, match='image file not found'):
        check_data(cfg, ('train',))


def test_other_types_and_remote_files_are_left_alone(data):
    for settings in (dict(type='LVISV1Dataset'), dict(backend_args=dict(backend='petrel'))):
        cfg = config(data)
        cfg.train_dataloader.dataset.update(settings)
        (data / 'images/1.jpg').unlink(missing_ok=True)
        check_data(cfg, ('train',))


def test_labels_must_be_the_same_everywhere(data):
    content = json.loads((data / 'file.json').read_text())
    for name, categories in (('file.json', 'ab'), ('val.json', 'ba')):
        write(data, content['images'], content['annotations'], name, categories)
    cfg = config(data)
    cfg.train_dataloader.dataset.metainfo.classes = ('a', 'b')
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, ann_file='val.json'))
    with pytest.raises(ValueError, match=r"label 0 is 'b', of train_dataloader.* it is 'a'"):
        check_data(cfg, ('train', 'val'))


def test_the_head_must_have_as_many_classes(data):
    cfg = config(data)
    cfg.model = dict(roi_head=dict(bbox_head=[dict(num_classes=1), dict(num_classes=80)]))
    with pytest.raises(ValueError, match=r'1 classes, model\.roi_head\.bbox_head\.num_classes=80'):
        check_data(cfg, ('train',))


def test_ground_truth_of_other_images_is_refused_before_training(data):
    content = json.loads((data / 'file.json').read_text())
    write(data, content['images'][:2], content['annotations'][:2], 'other.json')
    cfg = config(data)
    cfg.val_dataloader = dict(dataset=dict(cfg.train_dataloader.dataset, test_mode=True))
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(data / 'other.json'))
    with pytest.raises(ValueError, match=r'other\.json lacks image id 2 of val_dataloader'):
        check_data(cfg, ('val',))
    cfg.val_evaluator.ann_file = str(data / 'no.json')
    with pytest.raises(FileNotFoundError, match=r'no\.json of val_evaluator not found'):
        check_data(cfg, ('val',))


def test_sets_that_are_made_on_demand_are_not_asked_for_files(tmp_path):
    dataset = dict(type='ScenesDataset', data_root=str(tmp_path))
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    check_data(cfg, ('train',))


def test_folders_of_classes_are_checked(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / '0.png').write_bytes(encoded(NOISE, 'PNG'))
    dataset = dict(type='ImageFolder', data_root=str(tmp_path), pipeline=[])
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    report = next(data_reports(cfg, ('train',), full=True))
    assert (report.problems, report.boxes) == ([], dict(a=1, b=1))
    (tmp_path / 'a/1.jpg').write_bytes(encoded(NOISE)[:500])
    assert 'a/1.jpg' in next(data_reports(cfg, ('train',), full=True)).error_line
    (tmp_path / 'b/0.png').unlink()
    with pytest.raises(ValueError, match=r'class folder without images: .*/b, expected files in'):
        check_data(cfg, ('train',))


def test_a_config_without_data_is_refused(main, tmp_path, capsys):
    (tmp_path / 'config.py').write_text('x = 1')
    with pytest.raises(SystemExit):
        main([str(tmp_path / 'config.py')])
    assert 'has no train_, val_ or test_dataloader' in capsys.readouterr().err
