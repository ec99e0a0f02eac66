"""RoIAlign on channels-last maps: every output is a weighted sum of a few pixels' channels."""

import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from torch import Tensor

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
        if x.device.type != 'cpu' or x.dtype != torch.float32 or not len(rois) or not x.numel():
            return super().forward(x, rois)
        (batch, channels, height, width), (rows, columns) = x.shape, self.output_size
        pixels = x.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
        out = x.new_empty(len(rois), rows * columns, channels)
        offset = 0.5 if self.aligned else 0.0
        left, top, right, bottom = (rois[:, 1:] * self.spatial_scale - offset).unbind(dim=1)
        tall, vertical = self._steps(bottom - top, rows)
        wide, horizontal = self._steps(right - left, columns)
        first = rois[:, 0].long() * (height * width)
        for down, across in torch.stack((vertical, horizontal), dim=1).unique(dim=0).tolist():
            alike = ((vertical == down) & (horizontal == across)).nonzero().flatten()
            if down <= 0 or across <= 0:  # a box without area
                out[alike] = 0
                continue
            at_once = max(_PIXELS // (4 * rows * columns * down * across), 1)
            for some in alike.split(at_once):
                row, of_y = _samples(top[some], tall[some], rows, down, height)
                column, of_x = _samples(left[some], wide[some], columns, across, width)
                index = (row * width)[:, :, None, :, None] + column[:, None, :, None, :]
                index = index + first[some][:, None, None, None, None]
                weight = of_y[:, :, None, :, None] * of_x[:, None, :, None, :] / (down * across)
                bags = len(some) * rows * columns, -1
                sums = F.embedding_bag(
                    index.reshape(bags), pixels, per_sample_weights=weight.reshape(bags), mode='sum'
                )
                out[some] = sums.view(len(some), rows * columns, channels)
        return out.view(len(rois), rows, columns, channels).permute(0, 3, 1, 2)

    def _steps(self, size: Tensor, bins: int) -> tuple[Tensor, Tensor]:
        """The size of a bin, and how many samples it has, ``[N]`` each."""
        if not self.aligned:
            size = size.clamp(min=1)
        if self.sampling_ratio > 0:
            return size / bins, torch.full_like(size, self.sampling_ratio).long()
        return size / bins, (size / bins).ceil().long()


def _samples(
    start: Tensor, step: Tensor, bins: int, number: int, size: int
) -> tuple[Tensor, Tensor]:
    """The pixels of `number` samples in each bin along one side, and their weights.

    start, step: of the bins, ``[N]``. size: of the map. Returns ``[N, bins, 2 * number]`` each.
    """
    within = (torch.arange(number) + 0.5) / number
    places = start[:, None, None] + (torch.arange(bins)[:, None] + within) * step[:, None, None]
    seen = (places >= -1) & (places <= size)
    places = places.clamp(min=0)
    low = places.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    share = torch.where(low == size - 1, 0, places - low)
    weights = torch.cat(((1 - share) * seen, share * seen), dim=2)
    return torch.cat((low, high), dim=2), weights
