"""Images without labels, to distil from a teacher."""

import os
from collections.abc import Callable
from pathlib import Path

from mmdet.registry import DATASETS
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS

from .image_folder import transforms


@DATASETS.register_module()
class ImageFiles(Dataset):
    """All images in and below a folder, in the order of their names.

    For ``DistillationHook(labels=False)``, which needs none.

    pipeline: as :class:`~mmdet_groupconv.classification.ImageFolder`'s.

    Raises FileNotFoundError where there is no such folder or no image in it.
    """

    def __init__(self, data_root: str | os.PathLike, pipeline: list[dict]) -> None:
        if not os.path.isdir(data_root):
            raise FileNotFoundError(f'image folder {data_root} not found')
        files = Path(data_root).rglob('*')
        self.paths = sorted(path for path in files if path.suffix.lower() in IMG_EXTENSIONS)
        if not self.paths:
            raise FileNotFoundError(
                f'image folder {data_root} holds no image, expected {", ".join(IMG_EXTENSIONS)}'
            )
        self.transform = transforms(pipeline)
        self.metainfo: dict = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """inputs: ``[3, H, W]`` uint8, RGB."""
        return dict(inputs=read_image(self.paths[index], self.transform))


def read_image(path: Path, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """``[3, H, W]`` uint8, RGB."""
    with Image.open(path) as image:
        return transform(image.convert('RGB'))
