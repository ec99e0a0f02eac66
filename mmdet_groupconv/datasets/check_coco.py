"""Whether a COCO annotation file is what MMDetection's ``CocoDataset`` can train on."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .coco_file import BOX, ID, NUMBER, SIZE, TEXT, read_coco, sound_records
from .report import DataReport

# COCO itself has a few boxes that MMDetection leaves out or clips. Above these shares of all
# boxes a file means something else than [x, y, width, height] in its images' pixels.
_MOST_LEFT_OUT = 0.1
_MOST_STICKING_OUT = 0.5
_SLACK = 1.0  # pixel: of coordinates that were rounded


@dataclass(frozen=True)
class CocoUse:
    """How a data set's config uses its file.

    classes: names; in training, images are left out as ``filter_cfg`` says, else (`test_mode`)
    all are used. evaluated: the file is the ground truth of ``CocoMetric``, too.
    """

    classes: Sequence[str]
    training: bool = True
    filter_empty_gt: bool = False
    min_size: float = 0
    evaluated: bool = False


def check_coco(path: str | os.PathLike, use: CocoUse, report: DataReport) -> list[dict]:
    """Note the problems of an annotation file. Returns the images that are used.

    Only what ``CocoDataset.parse_data_info`` reads is looked at; what it leaves out by itself (a
    box without area, say) is a warning, in small numbers.

    Raises FileNotFoundError and ValueError where there is nothing to look at.
    """
    content = read_coco(path)
    size = dict(id=ID, file_name=TEXT, width=SIZE, height=SIZE)
    images = sound_records(content['images'], 'image', size, report)
    annotations = _annotations(content['annotations'], use, report)
    categories = sound_records(content['categories'], 'category', dict(id=ID, name=TEXT), report)
    for records, what in ((images, 'image'), (annotations, 'annotation'), (categories, 'category')):
        _check_unique(records, what, report)
    _check_classes(categories, use.classes, report)
    names = {category['id']: category['name'] for category in categories}
    annotations = _known(annotations, {image['id'] for image in images}, names, report)
    seen = [a for a in annotations if not a.get('ignore')]  # by MMDetection, at all
    kept = _check_boxes(seen, {image['id']: image for image in images}, report)
    used = _used(images, annotations, names, use)
    _count(report, images, annotations, kept, used, names, use)
    return used


def _annotations(records: list, use: CocoUse, report: DataReport) -> list[dict]:
    fields = dict(id=ID, image_id=ID, category_id=ID, bbox=BOX, area=NUMBER)
    if use.evaluated:
        fields['iscrowd'] = NUMBER  # COCO's evaluation fails without
    sound = sound_records(records, 'annotation', fields, report)
    if use.evaluated:  # it takes 0 for none
        zero = [f'image {a["image_id"]!r}' for a in sound if a['id'] == 0]
        report.add("annotation with id 0, which COCO's evaluation counts as missed", zero, False)
    return sound


def _check_unique(records: list[dict], what: str, report: DataReport) -> None:
    ids = [record['id'] for record in records]
    if len(set(ids)) < len(ids):
        many = [(key, number) for key, number in Counter(ids).items() if number > 1]
        report.add(f'{what} id used twice', (f'{what} id {key!r}, {n} times' for key, n in many))


def _check_classes(categories: list[dict], classes: Sequence[str], report: DataReport) -> None:
    names = [category['name'] for category in categories]
    lacking = [name for name in classes if name not in names]
    if lacking:
        has = ', '.join(map(repr, names[:5])) + (', ...' if len(names) > 5 else '')
        examples = (f'{name!r} not among the categories ({has or "none"})' for name in lacking)
        report.add("class of the config's metainfo.classes that the file lacks", examples)
    twice = [name for name, number in Counter(names).items() if number > 1 and name in classes]
    report.add('category name used twice', map(repr, twice))
    report.labels = tuple(name for name in names if name in classes)  # in the order of the file
    moved = [
        f'label {number} is {found!r}, metainfo.classes says {expected!r}'
        for number, (found, expected) in enumerate(zip(report.labels, classes, strict=False))
        if found != expected
    ]
    if not lacking and not twice:
        report.add('classes in another order than the file: pictures name them so', moved, False)


def _known(
    annotations: list[dict], images: Collection, names: Collection, report: DataReport
) -> list[dict]:
    strange = [a for a in annotations if a['image_id'] not in images]
    report.add(
        'annotation of an unknown image',
        (f'annotation id {a["id"]!r}, image_id {a["image_id"]!r}' for a in strange),
    )
    other = [a for a in annotations if a['category_id'] not in names]
    report.add(
        'annotation of an unknown category',
        (f'annotation id {a["id"]!r}, category_id {a["category_id"]!r}' for a in other),
    )
    if not strange and not other:
        return annotations
    return [a for a in annotations if a['image_id'] in images and a['category_id'] in names]


def _check_boxes(annotations: list[dict], images: dict, report: DataReport) -> list[dict]:
    """Note what is wrong with boxes. Returns the annotations that MMDetection doesn't leave out."""
    if not annotations:
        return []
    boxes = np.array([a['bbox'] for a in annotations], float)
    sizes = {key: (image['width'], image['height']) for key, image in images.items()}
    limits = np.array([sizes[a['image_id']] for a in annotations], float)  # [N, 2]
    areas = np.array([a['area'] for a in annotations], float)
    begin, extent = boxes[:, :2], boxes[:, 2:]
    inside = np.minimum(begin + extent, limits) - np.maximum(begin, 0)  # [N, 2]
    empty = (extent <= 0).any(axis=1) | (areas <= 0)
    outside = ~empty & (inside <= 0).any(axis=1)
    thin = ~empty & ~outside & (extent < 1).any(axis=1)
    left_out = empty | outside | thin
    over = (begin < -_SLACK) | (begin + extent > limits + _SLACK)
    over = ~left_out & over.any(axis=1)

    def examples(mask: np.ndarray) -> Iterable[str]:
        for number in np.flatnonzero(mask):
            a, (width, height) = annotations[number], limits[number]
            yield (
                f'annotation id {a["id"]!r} of image id {a["image_id"]!r}: bbox={a["bbox"]}, '
                f'area={a["area"]:g}, image {width:g}x{height:g}'
            )

    many = bool(left_out.mean() > _MOST_LEFT_OUT)
    report.add('box without area', examples(empty), many)
    report.add('box outside its image', examples(outside), many)
    report.add('box thinner than a pixel', examples(thin), many)
    most = bool(over.mean() > _MOST_STICKING_OUT)
    report.add('box that sticks out of its image', examples(over), most)
    return [annotations[number] for number in np.flatnonzero(~left_out)]


def _used(images: list[dict], annotations: list[dict], names: dict, use: CocoUse) -> list[dict]:
    # As CocoDataset.filter_data: crowds and boxes that are left out count there, too.
    if not use.training:
        return images
    wanted = {key for key, name in names.items() if name in use.classes}
    annotated = {a['image_id'] for a in annotations if a['category_id'] in wanted}
    return [
        image
        for image in images
        if (image['id'] in annotated or not use.filter_empty_gt)
        and min(image['width'], image['height']) >= use.min_size
    ]


def _count(
    report: DataReport, images: list, annotations: list, kept: list, used: list, names: dict,
    use: CocoUse,
) -> None:  # fmt: skip
    learned = Counter(names[a['category_id']] for a in kept if not a.get('iscrowd'))
    report.boxes = Counter({name: learned[name] for name in report.labels})
    total = report.boxes.total()
    report.counts = dict(
        images=len(images),
        images_used=len(used),
        annotations=len(annotations),
        boxes=total,
        categories=len(names),
    )
    if not used:
        what = 'no images' if not images else f'none of {len(images)} images is left by filter_cfg'
        report.add('empty data set', [f'{what}, expected some'])
    elif not total and report.labels and (use.training or annotations):
        report.add("no box of the config's classes", ['expected some'], use.training)
    if use.training and total:
        bare = [name for name, number in report.boxes.items() if not number]
        report.add('class without a box', map(repr, bare), False)
