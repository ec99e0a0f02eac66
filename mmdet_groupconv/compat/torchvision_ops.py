"""The operators of ``mmcv._ext`` that detectors need, written on torch and torchvision.

Every function takes the argument names and order of the compiled operator, so that ``mmcv.ops``
calls it unchanged, on CPU and CUDA. Half precision inputs are computed in float32.
"""

import struct

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from .roi_align_gradient import roi_align_gradient

_SOFTNMS_NAIVE, _SOFTNMS_LINEAR, _SOFTNMS_GAUSSIAN = range(3)
_ROI_ALIGN_AVG = 1


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes kept by greedy suppression, highest score first.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: a box is dropped when its IoU with a kept one is greater.
        offset: 0, or 1 where x2 and y2 name the last pixel, so that a width is x2 - x1 + 1.

    Returns:
        (K,) int64.
    """
    dtype = torch.promote_types(_compute_dtype(boxes), _compute_dtype(scores))
    boxes = boxes.to(dtype)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores.to(dtype), _as_float32(iou_threshold))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft suppression: overlapping boxes lose score, and leave when it falls below a floor.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        dets: (N, 5); its first K rows are filled with the kept boxes and their new scores.
        iou_threshold: overlap from which the naive and linear methods lower a score.
        sigma: width of the gaussian method.
        min_score: boxes that fall below are dropped.
        method: 0 naive (score 0), 1 linear (times 1 - IoU), 2 gaussian.
        offset: 0, or 1 where a width is x2 - x1 + 1.

    Returns:
        (K,) int64, indices of the kept boxes in the order of ``dets``.

    Raises:
        ValueError: for another method.
    """
    if method not in (_SOFTNMS_NAIVE, _SOFTNMS_LINEAR, _SOFTNMS_GAUSSIAN):
        raise ValueError(f'softnms method must be 0, 1 or 2, got {method}')
    dtype = _compute_dtype(boxes)
    boxes = boxes.to(dtype)
    sizes = boxes[:, 2:] - boxes[:, :2] + offset
    # One row per box still in play: x1, y1, x2, y2, score, area.
    rows = torch.cat((boxes, scores.to(dtype)[:, None], sizes.prod(dim=1, keepdim=True)), dim=1)
    order = torch.arange(len(rows), device=rows.device)
    step = 0
    while step < len(rows):
        best = step + int(rows[step:, 4].argmax())
        for table in (rows, order):
            table[[step, best]] = table[[best, step]]
        later = rows[step + 1 :]
        overlap = _iou_with(rows[step], later, offset)
        if method == _SOFTNMS_GAUSSIAN:
            later[:, 4] *= torch.exp(-overlap.square() / sigma)
        else:
            lowered = 1 - overlap if method == _SOFTNMS_LINEAR else torch.zeros_like(overlap)
            reached = overlap >= _as_float32(iou_threshold)
            later[:, 4] *= torch.where(reached, lowered, torch.ones_like(overlap))
        kept = step + 1 + _fill_gaps_from_the_end(later[:, 4] < _as_float32(min_score))
        kept = torch.cat((torch.arange(step + 1, device=rows.device), kept))
        rows, order = rows[kept], order[kept]
        step += 1
    dets[: len(rows)] = rows[:, :5]
    return order


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average-pool each region into ``output``.

    Args:
        input: (N, C, H, W).
        rois: (K, 5) as batch index, x1, y1, x2, y2.
        output: (K, C, aligned_height, aligned_width), overwritten.
        argmax_y, argmax_x: used by max pooling alone, left as they are.
        aligned_height, aligned_width: bins of a region.
        spatial_scale: from the coordinates of ``rois`` to those of ``input``.
        sampling_ratio: samples per bin and axis; 0 takes as many as the region needs.
        pool_mode: 1, average.
        aligned: shift the regions by half a pixel.

    Raises:
        NotImplementedError: for max pooling.
    """
    _require_average(pool_mode)
    dtype = torch.promote_types(_compute_dtype(input), _compute_dtype(rois))
    output.copy_(
        torch.ops.torchvision.roi_align(
            input.to(dtype).contiguous(),
            rois.to(dtype).contiguous(),
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`roi_align_forward` with respect to its input.

    Args:
        grad_output: (K, C, aligned_height, aligned_width).
        grad_input: (N, C, H, W), added to.
        rois, argmax_y, argmax_x, aligned_height, aligned_width, spatial_scale, sampling_ratio,
            pool_mode, aligned: as in the forward pass.

    Raises:
        NotImplementedError: for max pooling.
        RuntimeError: on CUDA under ``torch.use_deterministic_algorithms(True)``, from torch,
            which has no deterministic kernel for it.
    """
    _require_average(pool_mode)
    dtype = torch.promote_types(_compute_dtype(grad_output), _compute_dtype(rois))
    grad, rois = grad_output.to(dtype), rois.to(dtype)
    how = sampling_ratio, aligned
    if grad.device.type == 'cpu':
        grad_input.add_(roi_align_gradient(grad, rois, grad_input.shape, spatial_scale, *how))
        return
    size, shape = (aligned_height, aligned_width), grad_input.shape
    grad_input.add_(
        torch.ops.torchvision._roi_align_backward(
            grad.contiguous(), rois.contiguous(), spatial_scale, *size, *shape, *how
        )
    )


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the focal loss of each logit into ``output``.

    Args:
        input: (N, C) logits.
        target: (N,) int64 class indices; C, or any other index outside [0, C), is background.
        weight: (C,) factor of the rows of each class (background rows: 1), or empty.
        output: (N, C), overwritten.
        gamma: exponent of the modulating factor.
        alpha: weight of the positives; the negatives have 1 - alpha.
    """
    sign, balance = _focal_terms(input, target, weight, alpha)
    logits = sign * input
    output.copy_(-balance * torch.sigmoid(-logits).pow(gamma) * F.logsigmoid(logits))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of each element of the focal loss by its logit.

    Args:
        grad_input: (N, C), overwritten.
        input, target, weight, gamma, alpha: as in :func:`sigmoid_focal_loss_forward`.
    """
    sign, balance = _focal_terms(input, target, weight, alpha)
    logits = sign * input
    wrong = torch.sigmoid(-logits)
    slope = wrong - gamma * torch.sigmoid(logits) * F.logsigmoid(logits)
    grad_input.copy_(-sign * balance * wrong.pow(gamma) * slope)


def get_compiler_version() -> str:
    """What stands where mmcv names the compiler of its operators."""
    return f'none (torchvision {torchvision.__version__} stands in for the compiled ops)'


def get_compiling_cuda_version() -> str:
    """What stands where mmcv names the CUDA version its operators were compiled with."""
    return f'none (torch built with CUDA {torch.version.cuda or "not available"})'


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _as_float32(value: float) -> float:
    """``value`` as the compiled operators see it: it decides ties, such as an IoU of 0.6."""
    return struct.unpack('f', struct.pack('f', value))[0]


def _iou_with(box: Tensor, others: Tensor, offset: int) -> Tensor:
    """(M,) IoU of one row (x1, y1, x2, y2, score, area) with (M, 6) rows."""
    top_left = torch.maximum(box[:2], others[:, :2])
    bottom_right = torch.minimum(box[2:4], others[:, 2:4])
    shared = (bottom_right - top_left + offset).clamp(min=0).prod(dim=1)
    return shared / (box[5] + others[:, 5] - shared)


def _fill_gaps_from_the_end(dropped: Tensor) -> Tensor:
    """Order of the survivors when each dropped place is taken by the last survivor.

    mmcv removes a box by moving the last one into its place, which decides between equal scores.

    Args:
        dropped: (M,) bool.

    Returns:
        (K,) int64 indices of the K places that are not dropped.
    """
    kept = torch.nonzero(~dropped).flatten()
    order = torch.arange(len(kept), device=dropped.device)
    gaps = dropped[: len(kept)]
    order[gaps] = kept[kept >= len(kept)].flip(0)
    return order


def _require_average(pool_mode: int) -> None:
    if pool_mode != _ROI_ALIGN_AVG:
        raise NotImplementedError(
            "roi_align with pool_mode='max' needs the compiled ops of mmcv; "
            "torchvision has pool_mode='avg' only"
        )


def _focal_terms(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """(N, C) each: 1 for a positive and -1 for a negative, and the weight of the element."""
    positive = target[:, None] == torch.arange(input.size(1), device=target.device)
    one = torch.ones((), dtype=_compute_dtype(input), device=input.device)
    sign = torch.where(positive, one, -one)
    balance = torch.where(positive, alpha * one, (1 - alpha) * one)
    if weight.numel():
        # The compiled kernel reads past the end of weight for background rows.
        known = (target >= 0) & (target < input.size(1))
        of_row = weight.to(one.dtype)[target.clamp(0, input.size(1) - 1)]
        balance = balance * torch.where(known, of_row, one)[:, None]
    return sign, balance
