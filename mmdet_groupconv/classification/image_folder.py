"""Classification data: a folder of images for each class."""

import os

from mmdet.registry import DATASETS
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2


@DATASETS.register_module()
class ImageFolder(datasets.ImageFolder):
    """torchvision's: ``data_root/class/image``, the classes in the order of their names.

    pipeline: torchvision's ``transforms.v2`` by name, ``[dict(type='CenterCrop', size=224), ...]``;
    the image comes as PIL's in RGB and leaves as a uint8 tensor, for the model to normalise.

    Raises FileNotFoundError and ValueError that name what is wrong.
    """

    def __init__(self, data_root: str, pipeline: list[dict]) -> None:
        check_image_folder(data_root)
        super().__init__(data_root, transforms(pipeline))
        self.metainfo = dict(classes=tuple(self.classes))

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        """inputs: ``[3, H, W]`` uint8. data_samples: the class's number."""
        image, label = super().__getitem__(index)
        return dict(inputs=image, data_samples=label)


def check_image_folder(data_root: str, num_classes: int | None = None) -> list[str]:
    """The names of the classes, in order.

    Raises FileNotFoundError where there is no such folder, and ValueError where it has no class
    folders, or others than `num_classes` of them.
    """
    if not os.path.isdir(data_root):
        raise FileNotFoundError(f'image folder {data_root} not found')
    classes = sorted(entry.name for entry in os.scandir(data_root) if entry.is_dir())
    if not classes:
        raise ValueError(f'image folder {data_root} has no folders, expected one for each class')
    if num_classes not in (None, len(classes)):
        raise ValueError(
            f'image folder {data_root} has {len(classes)} class folders, expected the '
            f'num_classes={num_classes} of the model'
        )
    return classes


def transforms(pipeline: list[dict]) -> v2.Compose:
    """torchvision's ``transforms.v2`` by name, then to a uint8 tensor. Raises ValueError."""
    return v2.Compose([*map(_transform, pipeline), v2.PILToTensor()])


def _transform(cfg: dict) -> v2.Transform:
    arguments = dict(cfg)
    name = arguments.pop('type', None)
    transform = getattr(v2, str(name), None)
    if not (isinstance(transform, type) and issubclass(transform, v2.Transform)):
        raise ValueError(f'transform {name!r} not found in torchvision.transforms.v2')
    return transform(**arguments)
