"""The gradient of RoIAlign on CPUs: two small products of matrices for a box.

Bilinear samples on a grid are separable, so a box's bins are ``V @ map @ U.T`` of the pixels below
it. Ten times as fast as torchvision's kernel, which adds sample by sample and channel by channel
and takes a third of a training step of Faster R-CNN.
"""

from torch import Tensor

from .roi_samples import bin_samples, bin_steps


def roi_align_gradient(
    grad: Tensor,
    rois: Tensor,
    shape: tuple[int, int, int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """What the outputs' gradients are for the map.

    grad: ``[K, C, h, w]``. rois: ``[K, 5]``, image and corners. shape: the map's, ``[N, C, H, W]``.
    spatial_scale, sampling_ratio, aligned: RoIAlign's. Returns ``[N, C, H, W]``, channels-last.
    """
    images, channels, height, width = shape
    number, _, rows, columns = grad.shape
    left, top, right, bottom = (rois[:, 1:] * spatial_scale - 0.5 * aligned).unbind(dim=1)
    tall, vertical = bin_steps(bottom - top, rows, sampling_ratio, aligned)
    wide, horizontal = bin_steps(right - left, columns, sampling_ratio, aligned)
    down = _shares(top, tall, rows, vertical, height)
    across = _shares(left, wide, columns, horizontal, width)
    grad = grad.permute(0, 2, 3, 1).reshape(number, rows, columns * channels)
    pixels = grad.new_zeros(images, height, width, channels)
    boxes = zip(rois[:, 0].long().tolist(), _spans(down), _spans(across), strict=True)
    for box, (image, (y0, y1), (x0, x1)) in enumerate(boxes):
        lines = (down[box, y0:y1] @ grad[box]).view(y1 - y0, columns, channels)
        pixels[image, y0:y1, x0:x1] += across[box, x0:x1] @ lines
    return pixels.permute(0, 3, 1, 2)


def _shares(start: Tensor, step: Tensor, bins: int, samples: Tensor, size: int) -> Tensor:
    """What of each pixel along one side goes into each bin, ``[K, size, bins]``."""
    shares = start.new_zeros(len(start), size, bins)
    for number in samples.unique().tolist():
        if number <= 0:  # boxes without area
            continue
        alike = (samples == number).nonzero().flatten()
        index, weight = bin_samples(start[alike], step[alike], bins, number, size)
        of_bins = start.new_zeros(len(alike), bins, size).scatter_add_(2, index, weight)
        shares[alike] = of_bins.transpose(1, 2) / number
    return shares


def _spans(shares: Tensor) -> list[tuple[int, int]]:
    """The first pixel that a box reads, and the one after the last."""
    read = (shares != 0).any(dim=2).int()
    return [
        (first, read.size(1) - after)
        for first, after in zip(
            read.argmax(dim=1).tolist(), read.flip(1).argmax(dim=1).tolist(), strict=True
        )
    ]
