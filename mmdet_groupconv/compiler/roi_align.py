"""RoIAlign on channels-last maps: every output is a weighted sum of a few pixels' channels."""

import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from torch import Tensor

from ..compat.roi_samples import bin_samples, bin_steps

_PIXELS = 1 << 21  # that are summed up in one call


class CompactRoIAlign(RoIAlign):
    """The same as mmcv's ``RoIAlign`` in mode 'avg', several times as fast on CPUs.

    There an ``embedding_bag`` sums whole pixels, with all their channels, from the map as the
    layers before leave it; the usual kernel goes through the map channel by channel.
    """

    def __init__(self, layer: RoIAlign) -> None:
        super().__init__(
            layer.output_size,
            layer.spatial_scale,
            layer.sampling_ratio,
            layer.pool_mode,
            layer.aligned,
            layer.use_torchvision,
        )

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """x: ``[B, C, H, W]``. rois: ``[N, 5]``, image and corners. Returns ``[N, C, h, w]``."""
        if (
            x.device.type != 'cpu'
            or x.dtype not in (torch.float32, torch.bfloat16)
            or not len(rois)
            or not x.numel()
        ):
            return super().forward(x, rois)
        (batch, channels, height, width), (rows, columns) = x.shape, self.output_size
        pixels = x.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
        out = x.new_empty(len(rois), rows * columns, channels)
        offset = 0.5 if self.aligned else 0.0
        left, top, right, bottom = (rois[:, 1:] * self.spatial_scale - offset).unbind(dim=1)
        how = self.sampling_ratio, self.aligned
        tall, vertical = bin_steps(bottom - top, rows, *how)
        wide, horizontal = bin_steps(right - left, columns, *how)
        first = rois[:, 0].long() * (height * width)
        for down, across in torch.stack((vertical, horizontal), dim=1).unique(dim=0).tolist():
            alike = ((vertical == down) & (horizontal == across)).nonzero().flatten()
            if down <= 0 or across <= 0:  # a box without area
                out[alike] = 0
                continue
            at_once = max(_PIXELS // (4 * rows * columns * down * across), 1)
            for some in alike.split(at_once):
                row, of_y = bin_samples(top[some], tall[some], rows, down, height)
                column, of_x = bin_samples(left[some], wide[some], columns, across, width)
                index = (row * width)[:, :, None, :, None] + column[:, None, :, None, :]
                index = index + first[some][:, None, None, None, None]
                weight = of_y[:, :, None, :, None] * of_x[:, None, :, None, :] / (down * across)
                bags = len(some) * rows * columns, -1
                sums = F.embedding_bag(
                    index.reshape(bags), pixels, per_sample_weights=weight.reshape(bags), mode='sum'
                )
                out[some] = sums.view(len(some), rows * columns, channels)
        return out.view(len(rois), rows, columns, channels).permute(0, 3, 1, 2)
