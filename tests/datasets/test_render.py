import cv2
import numpy as np
import pytest

from mmdet_groupconv.datasets import render
from mmdet_groupconv.datasets.render import CLASSES, render_scene, shape_contours

SIDE = 160


def make(index: int, width: int = SIDE, height: int = SIDE) -> render.Scene:
    return render_scene(np.random.default_rng([5, index]), width, height)


@pytest.fixture(scope='module')
def scenes() -> list[render.Scene]:
    return [make(index) for index in range(80)]


def test_equal_generators_render_equal_scenes():
    first, second = make(3), make(3)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.boxes, second.boxes)
    assert np.array_equal(first.labels, second.labels)


def test_different_generators_render_different_images():
    assert not np.array_equal(make(3).image, make(4).image)


def test_arrays_have_the_documented_types_and_shapes():
    scene = make(0, width=200, height=120)
    count = len(scene.labels)
    assert (scene.image.shape, scene.image.dtype) == ((120, 200, 3), np.uint8)
    assert (scene.boxes.shape, scene.boxes.dtype) == ((count, 4), np.float32)
    assert (scene.labels.shape, scene.labels.dtype) == ((count,), np.int64)
    assert (scene.areas.shape, scene.areas.dtype) == ((count,), np.int64)
    assert (scene.instance_map.shape, scene.instance_map.dtype) == ((120, 200), np.int16)


def test_boxes_and_areas_fit_the_visible_pixels_exactly(scenes):
    for scene in scenes:
        for index, box in enumerate(scene.boxes):
            rows, columns = np.nonzero(scene.instance_map == index)
            assert box.tolist() == [
                columns.min(),
                rows.min(),
                columns.max() + 1,
                rows.max() + 1,
            ]
            assert scene.areas[index] == len(rows)


def test_every_object_drawn_is_listed(scenes):
    for scene in scenes:
        assert set(np.unique(scene.instance_map)) - {-1} == set(range(len(scene.labels)))


def test_objects_differ_from_what_surrounds_them(scenes):
    contrast = []
    for scene in scenes:
        for index in range(len(scene.labels)):
            mask = (scene.instance_map == index).astype(np.uint8)
            around = cv2.dilate(mask, np.ones((9, 9))) - cv2.dilate(mask, np.ones((3, 3)))
            inside, outside = cv2.mean(scene.image, mask)[:3], cv2.mean(scene.image, around)[:3]
            contrast.append(np.linalg.norm(np.subtract(inside, outside)))
    assert np.quantile(contrast, 0.05) > 65


def test_at_least_half_of_every_object_is_visible(monkeypatch):
    whole = []
    paint = render._paint

    def recording_paint(rng, canvas, shape, spot):
        whole.append(shape.mask.sum())
        paint(rng, canvas, shape, spot)

    monkeypatch.setattr(render, '_paint', recording_paint)
    shares = []
    for index in range(40):
        whole.clear()
        shares.extend(make(index).areas / np.array(whole))
    assert min(shares) >= 0.5
    assert min(shares) < 0.75


def test_number_of_objects_stays_in_range(scenes):
    counts = {len(scene.labels) for scene in scenes}
    assert counts == set(range(2, 8))


def test_every_class_occurs_about_equally(scenes):
    labels = np.concatenate([scene.labels for scene in scenes])
    share = np.bincount(labels, minlength=len(CLASSES)) / len(labels)
    assert share.min() > 0.1
    assert share.max() < 0.25


def test_sizes_span_the_range(scenes):
    boxes = np.concatenate([scene.boxes for scene in scenes])
    extent = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / SIDE
    assert np.quantile(extent, 0.1) < 0.18
    assert np.quantile(extent, 0.9) > 0.35
    assert extent.max() < 0.53


def test_colour_does_not_tell_the_class(scenes):
    colours: dict[int, list] = {label: [] for label in range(len(CLASSES))}
    for scene in scenes:
        for index, label in enumerate(scene.labels.tolist()):
            colours[label].append(scene.image[scene.instance_map == index].mean(axis=0))
    means = np.array([np.mean(values, axis=0) for values in colours.values()])
    assert np.ptp(means, axis=0).max() < 50


@pytest.mark.parametrize(
    ('name', 'corners'), [('square', 4), ('triangle', 3), ('cross', 12), ('star', 10)]
)
def test_polygons_have_their_corners(name, corners):
    (contour,) = shape_contours(CLASSES.index(name))
    assert contour.shape == (corners, 2)


@pytest.mark.parametrize('name', ['disc', 'ring'])
def test_only_the_ring_has_a_hole(name):
    contours = shape_contours(CLASSES.index(name))
    assert len(contours) == {'disc': 1, 'ring': 2}[name]


def test_smallest_ring_shows_its_hole(monkeypatch):
    monkeypatch.setattr(render, 'OBJECT_EXTENT', (0.12, 0.1201))
    rng = np.random.default_rng(0)
    shapes = [render._random_shape(rng, SIDE) for _ in range(60)]
    rings = [shape for shape in shapes if CLASSES[shape.label] == 'ring']
    assert rings
    for ring in rings:
        height, width = ring.alpha.shape
        assert (
            ring.alpha[height // 2 - 1 : height // 2 + 2, width // 2 - 1 : width // 2 + 2].max()
            == 0
        )
