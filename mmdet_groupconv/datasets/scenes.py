"""A detection data set that makes its own images, for runs without a download."""

from collections.abc import Sequence
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from .render import CLASSES
from .scene_files import ANN_FILE, prepare_scenes


@DATASETS.register_module()
class ScenesDataset(CocoDataset):
    """Synthetic scenes with six kinds of shapes, made on first use and kept as COCO files.

    Constructing it writes ``{data_root}/annotations/{split}.json`` and the images below
    ``{data_root}/{split}/``, unless they are there already with the same parameters; from then on
    it is an ordinary :class:`CocoDataset`, and that JSON file serves ``CocoMetric(ann_file=...)``.
    Image ``i`` of a split depends only on ``seed``, ``split``, ``i`` and ``image_size``, so a
    smaller set is a prefix of a larger one.

    A set with other parameters gets an image folder of its own and takes over the JSON file; the
    earlier folder stays, since another process may still read it. Jobs that run at the same time
    with different parameters therefore need a ``data_root`` each.

    Args:
        data_root: folder for the files.
        split: ``'train'`` or ``'val'``; they share no image.
        num_images: images in the split.
        image_size: side in pixels, or (width, height).
        seed: non-negative integer all images derive from.
        **kwargs: as for :class:`CocoDataset`, without ``ann_file`` and ``data_prefix``.

    Raises:
        ValueError: an argument is out of its range, or the annotation file in ``data_root`` was
            made by something else and so must not be replaced.
        OSError: ``data_root`` cannot be written.
    """

    METAINFO = {  # noqa: RUF012 - the form that mmengine reads
        'classes': CLASSES,
        'palette': [
            (220, 20, 60),
            (0, 160, 70),
            (0, 110, 255),
            (255, 190, 0),
            (190, 60, 230),
            (0, 200, 220),
        ],
    }

    def __init__(
        self,
        data_root: str = 'data/scenes',
        split: str = 'train',
        num_images: int = 1000,
        image_size: int | Sequence[int] = 192,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        prepare_scenes(data_root, split, num_images, image_size, seed)
        super().__init__(
            ann_file=ANN_FILE.format(split=split),
            data_root=data_root,
            data_prefix={'img': split},
            **kwargs,
        )
