"""A detector's file in the place of the detector, for MMEngine's test loop."""

import os
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .runtime import RunningFile, Runtime


class FileDetector(nn.Module):
    """What :func:`export_onnx` wrote of a whole detector.

    Raises ValueError for a file that gives no boxes, and as
    :class:`~mmdet_groupconv.deploy.runtime.RunningFile` does.
    """

    def __init__(self, path: str | os.PathLike, runtime: Runtime) -> None:
        super().__init__()
        self.file = RunningFile(path, runtime)
        if 'scale' not in self.file.about:
            raise ValueError(
                f'file {path} gives no boxes, expected one of tools/export.py --part detector'
            )

    @torch.no_grad()
    def test_step(self, data: dict[str, Any]) -> list[DetDataSample]:
        """Boxes in the images as they were before the test pipeline resized them.

        data: a batch of a data loader, images ``[3, H, W]`` uint8 in BGR.
        """
        return [
            self._detect(image, sample)
            for image, sample in zip(data['inputs'], data['data_samples'], strict=True)
        ]

    def _detect(self, image: Tensor, sample: DetDataSample) -> DetDataSample:
        pixels = np.ascontiguousarray(image.numpy()[None, ::-1])
        boxes, scores, labels = map(torch.from_numpy, self.file(pixels))
        boxes = boxes / boxes.new_tensor(sample.scale_factor).repeat(2)
        sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        return sample
