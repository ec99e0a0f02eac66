"""How far a student's outputs are from a teacher's: maps, dense heads, softmaxes, boxes of RoIs.

All are computed in float32 or more, are 0 where both agree, and give the teacher no gradient.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Maps = Sequence[Tensor]


def pearson_distillation(student: Maps, teacher: Maps) -> Tensor:
    """PKD (Cao et al., NeurIPS 2022, section 3): one minus the correlation of each channel.

    student, teacher: a map ``[B, C, H, W]`` for each level, of equal shapes. Each channel gets mean
    0 and variance 1 over batch and space; then half the mean squared difference, which is the mean
    of ``1 - r`` over channels. The mean within a level and the sum over levels, as in the authors'
    code, so that its weights (10 for one stage, 6 for two) mean the same here.
    """
    pairs = zip(student, teacher, strict=True)
    losses = [(_standardised(s) - _standardised(t.detach())).square().mean() / 2 for s, t in pairs]
    return torch.stack(losses).sum()


def _standardised(x: Tensor) -> Tensor:
    x = _wide(x)
    std = x.std(dim=(0, 2, 3), correction=0, keepdim=True)
    # A constant channel, such as of a pruned filter, correlates with nothing: 0, without gradient.
    std = std.where(std > 1e-6, torch.inf)
    return (x - x.mean(dim=(0, 2, 3), keepdim=True)) / std


def dense_head_distillation(
    student: tuple[Maps, Maps], teacher: tuple[Maps, Maps], num_classes: int
) -> tuple[Tensor, Tensor]:
    """What the scores and the boxes of an anchor head, or an RPN, lack.

    student, teacher: for each level class logits ``[B, A * num_classes, H, W]`` and box deltas
    ``[B, A * 4, H, W]`` of A anchors a position. Classes: binary cross entropy to the teacher's
    sigmoid beyond the teacher's own entropy, summed over classes. Boxes: L1, as labels teach them:
    a smooth one hardly sees how near they are; summed over coordinates. Both are means over
    anchors, weighted by the teacher's highest score.
    """
    logits, boxes = _anchors(student, num_classes)
    teacher_logits, teacher_boxes = _anchors(
        [[x.detach() for x in m] for m in teacher], num_classes
    )
    target = teacher_logits.sigmoid()  # [anchors, classes]
    weight = target.amax(dim=1)
    entropy = F.binary_cross_entropy_with_logits(teacher_logits, target, reduction='none')
    excess = F.binary_cross_entropy_with_logits(logits, target, reduction='none') - entropy
    distance = (boxes - teacher_boxes).abs()
    return _weighted_mean(excess.sum(dim=1), weight), _weighted_mean(distance.sum(dim=1), weight)


def softmax_distillation(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence of softened softmaxes (Hinton et al., 2015, section 2).

    student, teacher: logits ``[rows, classes]``; the mean over rows, 0 of none. Multiplied by the
    temperature's square, so that gradients keep their size.
    """
    log_p = (_wide(student) / temperature).log_softmax(dim=1)
    log_q = (_wide(teacher.detach()) / temperature).log_softmax(dim=1)
    divergence = F.kl_div(log_p, log_q, reduction='sum', log_target=True)
    return temperature**2 * divergence / max(1, len(student))


def roi_box_distillation(student: Tensor, teacher: Tensor, teacher_logits: Tensor) -> Tensor:
    """L1, summed over coordinates, on boxes of the teacher's most probable class.

    student, teacher: deltas ``[rois, classes * 4]``, or ``[rois, 4]`` where all classes share them.
    teacher_logits: ``[rois, classes + 1]``, the background last; the mean over RoIs is weighted by
    the teacher's probability of any foreground.
    """
    probability = _wide(teacher_logits.detach()).softmax(dim=1)[:, :-1]
    shared = student.size(1) == 4
    best = torch.zeros_like(probability[:, 0]).long() if shared else probability.argmax(dim=1)
    rois = torch.arange(len(best), device=best.device)
    ours, theirs = (
        _wide(x).unflatten(1, (-1, 4))[rois, best]  # [rois, 4]
        for x in (student, teacher.detach())
    )
    distance = (ours - theirs).abs().sum(dim=1)
    return _weighted_mean(distance, probability.sum(dim=1))


def _anchors(outputs: Sequence[Maps], num_classes: int) -> tuple[Tensor, Tensor]:
    """Logits ``[anchors, num_classes]`` and deltas ``[anchors, 4]`` of all levels and images."""
    logits, boxes = [], []
    for scores, deltas in zip(*outputs, strict=True):
        logits.append(_wide(scores).permute(0, 2, 3, 1).reshape(-1, num_classes))
        boxes.append(_wide(deltas).permute(0, 2, 3, 1).reshape(len(logits[-1]), -1))
    return torch.cat(logits), torch.cat(boxes)


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
