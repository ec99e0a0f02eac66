"""Every fault of an annotation file is named; what MMDetection copes with is not refused."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset

from mmdet_groupconv.datasets.check_coco import CocoUse, check_coco
from mmdet_groupconv.datasets.report import DataReport

USE = CocoUse(('cat', 'dog'), filter_empty_gt=True)
PER_TEST = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def coco(boxes=20):
    images = [dict(id=i, file_name=f'{i}.jpg', width=64, height=48) for i in (1, 2)]
    annotations = [
        dict(
            id=n + 1, image_id=n % 2 + 1, category_id=n % 2 + 1,
            bbox=[4, 4, 20, 10], area=200, iscrowd=0,
        )
        for n in range(boxes)
    ]  # fmt: skip
    categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    return dict(images=images, annotations=annotations, categories=categories)


def check(path, content, use=USE):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    report = DataReport('train_dataloader: file.json')
    check_coco(path, use, report)
    return report


def test_a_sound_file_has_no_problems_and_is_counted(tmp_path):
    report = check(tmp_path / 'file.json', coco())
    assert report.problems == []
    assert report.boxes == dict(cat=10, dog=10)
    assert report.counts['images_used'] == 2


UNREADABLE = {
    'empty': ('', 'is empty'),
    'cut short': (json.dumps(coco())[:-40], 'is not JSON, or cut short'),
    'no json': ('hello', 'is not JSON'),
    'a list': ('[]', 'holds a list, expected an object'),
    'no images': ('{"categories": []}', 'no images, expected a list images'),
    'no categories': ('{"images": []}', 'no categories, expected a list'),
    'images an object': ('{"images": {}, "categories": []}', 'images is a dict'),
    'a number': ('3', 'holds a int'),
    'binary': ('\x00\x01', 'is not JSON'),
}


@pytest.mark.parametrize('case', UNREADABLE)
def test_what_is_no_coco_file_is_refused(tmp_path, case):
    content, message = UNREADABLE[case]
    with pytest.raises(ValueError, match=rf'file\.json.*{message}'):
        check(tmp_path / 'file.json', content)


@PER_TEST
@given(cut=st.integers(1, len(json.dumps(coco())) - 1))
def test_a_file_cut_anywhere_is_refused(tmp_path, cut):
    with pytest.raises(ValueError, match=r'file\.json is not JSON, or cut short'):
        check(tmp_path / 'file.json', json.dumps(coco())[:cut])


FIELDS = [
    *(('images', key) for key in ('id', 'file_name', 'width', 'height')),
    *(('annotations', key) for key in ('id', 'image_id', 'category_id', 'bbox', 'area')),
    *(('categories', key) for key in ('id', 'name')),
]


def test_a_missing_key_is_named(tmp_path):
    for part, key in FIELDS:
        content = coco()
        del content[part][1][key]
        report = check(tmp_path / 'file.json', content)
        assert f'without {key}' in report.error_line, part


WRONG = [
    None,
    [],
    {},
    [None],
    float('nan'),
    float('inf'),
    True,
    [1, 2, 3],
    [1, 2, 3, 'x'],
    ['1'] * 4,
]


@PER_TEST
@given(field=st.sampled_from(FIELDS), wrong=st.sampled_from(WRONG))
def test_a_value_of_a_wrong_type_is_named(tmp_path, field, wrong):
    part, key = field
    content = coco()
    content[part][1][key] = copy.deepcopy(wrong)
    report = check(tmp_path / 'file.json', content)
    assert f'whose {key} is not' in report.error_line
    assert report.error_line.startswith('train_dataloader: file.json: ')


@PER_TEST
@given(
    record=st.sampled_from([None, 3, 'x', [], [{}]]),
    part=st.sampled_from(['images', 'annotations']),
)
def test_a_record_that_is_no_object_is_named(tmp_path, record, part):
    content = coco()
    content[part].append(record)
    assert 'that is no object' in check(tmp_path / 'file.json', content).error_line


def repeated(content, part, key):
    content[part][1][key] = content[part][0][key]


FAULTS = {
    'image id twice': (lambda c: repeated(c, 'images', 'id'), 'image id used twice: image id 1'),
    'annotation id twice': (
        lambda c: repeated(c, 'annotations', 'id'), 'annotation id used twice: annotation id 1, 2'
    ),
    'category id twice': (lambda c: repeated(c, 'categories', 'id'), 'category id used twice'),
    'category name twice': (lambda c: repeated(c, 'categories', 'name'), "lacks: 'dog'"),
    'unknown category': (
        lambda c: c['annotations'][0].update(category_id=9), 'unknown category: annotation id 1'
    ),
    'unknown image': (
        lambda c: c['annotations'][0].update(image_id=9),
        'unknown image: annotation id 1, image_id 9',
    ),
    'ids of another type': (
        lambda c: c['annotations'][0].update(image_id='1'),
        "unknown image: annotation id 1, image_id '1'",
    ),
    'no images': (lambda c: c.update(images=[], annotations=[]), 'no images, expected some'),
    'no annotations': (lambda c: c.update(annotations=[]), 'left by filter_cfg'),
    'a class is missing': (lambda c: c['categories'].pop(), "'dog' not among the categories"),
    'zero size': (lambda c: c['images'][0].update(width=0), 'whose width is not a number above 0'),
}  # fmt: skip


@pytest.mark.parametrize('case', FAULTS)
def test_a_fault_is_named(tmp_path, case):
    spoil, message = FAULTS[case]
    content = coco()
    spoil(content)
    report = check(tmp_path / 'file.json', content)
    assert message in '; '.join(map(str, report.errors))


ODD = {
    'without area': dict(bbox=[4, 4, 0, 10]),
    'of negative width': dict(bbox=[10, 4, -5, 10]),
    'of area 0': dict(area=0),
    'outside': dict(bbox=[70, 4, 10, 10]),
    'thin': dict(bbox=[4, 4, 0.5, 10]),
    'sticking out': dict(bbox=[50, 4, 40, 10]),
}


@pytest.mark.parametrize('case', ODD)
def test_a_few_odd_boxes_are_warnings_and_most_are_errors(tmp_path, case):
    content = coco()
    content['annotations'][3].update(ODD[case])
    report = check(tmp_path / 'file.json', content)
    (problem,) = report.problems
    assert not problem.error
    assert 'annotation id 4 of image id 2' in problem.examples[0]
    for annotation in content['annotations'][3:]:
        annotation.update(ODD[case])
    assert check(tmp_path / 'file.json', content).errors


def test_a_box_as_thin_as_a_pixel_is_learned(tmp_path):
    content = coco()
    content['annotations'][3].update(bbox=[4, 4, 1, 10])
    assert check(tmp_path / 'file.json', content).problems == []


def test_a_box_may_stick_out_by_the_pixel_that_rounding_takes(tmp_path):
    content = coco()
    content['annotations'][3].update(bbox=[-1, 4, 66, 10])  # of 64
    assert check(tmp_path / 'file.json', content).problems == []


number = st.floats(-100, 100, allow_nan=False)


@settings(PER_TEST, max_examples=3)
@given(boxes=st.lists(st.tuples(*[number] * 5), min_size=20, max_size=40))
def test_as_many_boxes_are_left_as_mmdetection_keeps(tmp_path, boxes):
    content = coco(len(boxes))
    for annotation, (*box, area) in zip(content['annotations'], boxes, strict=True):
        annotation.update(bbox=box, area=area)
    report = check(tmp_path / 'file.json', content)
    data = CocoDataset(
        str(tmp_path / 'file.json'), metainfo=dict(classes=USE.classes), data_prefix=dict(img='')
    )
    kept = sum(len(data.get_data_info(number)['instances']) for number in range(len(data)))
    assert report.counts['boxes'] == kept


def test_crowds_and_ignored_boxes_are_legal(tmp_path):
    content = coco()
    content['annotations'][0].update(iscrowd=1, segmentation=dict(counts=[1, 2], size=[48, 64]))
    content['annotations'][1].update(ignore=True, bbox=[0, 0, 0, 0])
    content['annotations'][2].update(segmentation=[[1.5, 2, -3e1, 4]])
    content['categories'].append(dict(id=3, name='unused'))
    report = check(tmp_path / 'file.json', content)
    assert report.problems == []
    assert report.counts['boxes'] == 18


def test_another_order_of_classes_is_a_warning(tmp_path):
    report = check(tmp_path / 'file.json', coco(), CocoUse(('dog', 'cat')))
    (problem,) = report.problems
    assert not problem.error
    assert "label 0 is 'cat', metainfo.classes says 'dog'" in problem.examples


def test_test_sets_may_lack_annotations(tmp_path):
    content = coco()
    del content['annotations']
    report = check(tmp_path / 'file.json', content, CocoUse(USE.classes, training=False))
    assert not report.errors


def test_ground_truth_needs_iscrowd(tmp_path):
    content = coco()
    del content['annotations'][4]['iscrowd']
    assert not check(tmp_path / 'file.json', content).errors
    use = CocoUse(USE.classes, training=False, evaluated=True)
    assert (
        'annotation without iscrowd: annotation id 5'
        in check(tmp_path / 'file.json', content, use).error_line
    )
