"""Images to run a detector on: a file, a folder of files, or the frames of a video."""

import os
from collections.abc import Iterator
from pathlib import Path

import mmcv
import numpy as np
from mmdet.apis.det_inferencer import IMG_EXTENSIONS

VIDEOS = '.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg'


class ImageFiles:
    """Yields ``(name, image)``, images as ``[H, W, 3]`` uint8 in BGR; None where one is damaged.

    path: a file, or a folder whose images are taken in the order of their names.

    Raises FileNotFoundError where there is nothing, ValueError for a folder without images.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        path = Path(path)
        if path.is_dir():
            self.files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMG_EXTENSIONS)
            if not self.files:
                raise ValueError(f'folder {path} has no images, expected some of {IMG_EXTENSIONS}')
        elif path.is_file():
            self.files = [path]
        else:
            raise FileNotFoundError(f'{path} not found, expected an image, a folder or a video')

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray | None]]:
        for file in self.files:
            content = file.read_bytes()
            yield file.name, mmcv.imfrombytes(content) if content else None


class VideoFrames:
    """Yields ``(name, frame)`` as :class:`ImageFiles` does; ``fps`` and ``size`` (W, H) tell more.

    Raises ValueError where the file is no video that OpenCV reads.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.video = mmcv.VideoReader(str(path))
        if not self.video.opened or not self.video.width:
            raise ValueError(f'{path} can not be read as a video')
        self.fps = self.video.fps or 25.0
        self.size = self.video.width, self.video.height

    def __len__(self) -> int:
        return self.video.frame_cnt

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        for index, frame in enumerate(self.video):
            yield f'{self.path.stem}-{index:06d}.jpg', frame


def open_source(path: str | os.PathLike) -> ImageFiles | VideoFrames:
    """What a path holds, told by its suffix."""
    is_video = os.path.isfile(path) and str(path).lower().endswith(VIDEOS)
    return VideoFrames(path) if is_video else ImageFiles(path)
