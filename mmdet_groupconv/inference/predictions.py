"""Predicted boxes as a COCO file, and painted on pictures."""

from collections.abc import Iterable
from typing import Any

import mmcv
import numpy as np
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample


class CocoPredictions:
    """Collects boxes in COCO's layout: images, categories, annotations with a ``score`` each.

    classes: names; a category's id is its place among them, from 1.
    """

    def __init__(self, classes: Iterable[str]) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories = [dict(id=n, name=name) for n, name in enumerate(classes, 1)]

    def add(self, name: str, shape: tuple[int, ...], sample: DetDataSample) -> None:
        """One image's boxes. shape: (H, W, ...), in pixels; boxes are in them."""
        image_id = len(self._images) + 1
        height, width = shape[:2]
        self._images.append(dict(id=image_id, file_name=name, width=width, height=height))
        boxes = sample.pred_instances
        for box, label, score in zip(
            boxes.bboxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist(), strict=True
        ):
            x1, y1, x2, y2 = box
            self._annotations.append(
                dict(
                    id=len(self._annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=[round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    area=round((x2 - x1) * (y2 - y1), 2),
                    iscrowd=0,
                    score=round(score, 4),
                )
            )

    def to_dict(self) -> dict[str, list]:
        """For JSON."""
        return dict(images=self._images, annotations=self._annotations, categories=self._categories)

    def counts(self) -> dict[str, int]:
        """Boxes by class, most first."""
        names = {category['id']: category['name'] for category in self._categories}
        found: dict[str, int] = {}
        for annotation in self._annotations:
            name = names[annotation['category_id']]
            found[name] = found.get(name, 0) + 1
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def predict(inferencer: DetInferencer, image: np.ndarray, threshold: float) -> DetDataSample:
    """The boxes of a BGR image ``[H, W, 3]`` that score at least `threshold`."""
    sample = inferencer(image, return_datasamples=True)['predictions'][0]
    sample.pred_instances = sample.pred_instances[sample.pred_instances.scores >= threshold].cpu()
    return sample


def paint(inferencer: DetInferencer, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
    """The image with its boxes, in BGR as it came."""
    visualizer = inferencer.visualizer
    rgb = mmcv.bgr2rgb(image)
    visualizer.add_datasample('', rgb, sample, draw_gt=False, pred_score_thr=0.0)
    return mmcv.rgb2bgr(visualizer.get_image())
