"""Each loss against its formula, written out in loops over float64."""

import math

import numpy as np
import pytest
import torch

from mmdet_groupconv.engine.distillation_losses import (
    dense_head_distillation,
    pearson_distillation,
    roi_box_distillation,
    softmax_distillation,
)

ANCHORS, CLASSES = 2, 3
LEVELS = (4, 3), (2, 1)  # height and width of the maps


def maps(channels, **options):
    return [torch.randn(2, channels, *size, dtype=torch.float64, **options) for size in LEVELS]


def dense_outputs(**options):
    return maps(ANCHORS * CLASSES, **options), maps(ANCHORS * 4, **options)


def logits(rows=5, columns=CLASSES + 1, requires_grad=False):
    drawn = 2 * torch.randn(rows, columns, dtype=torch.float64)
    return drawn.requires_grad_(requires_grad)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_pearson_is_one_minus_the_correlation_of_each_channel():
    student, teacher = maps(3), maps(3)
    expected = 0
    for ours, theirs in zip(student, teacher, strict=True):
        pairs = [(ours[:, c].flatten(), theirs[:, c].flatten()) for c in range(3)]
        expected += np.mean([1 - np.corrcoef(*pair)[0, 1] for pair in pairs])
    assert float(pearson_distillation(student, teacher)) == pytest.approx(expected, rel=1e-9)


def test_pearson_ignores_each_channel_s_scale_and_shift():
    student, teacher = maps(3), maps(3)
    expected = pearson_distillation(student, teacher)
    scale, shift = torch.tensor([0.01, 2.0, 300.0]), torch.tensor([5.0, 0.0, -7.0])
    scaled = [x * scale[:, None, None] + shift[:, None, None] for x in student]
    torch.testing.assert_close(pearson_distillation(scaled, teacher), expected)
    torch.testing.assert_close(pearson_distillation(teacher, scaled), expected)
    assert pearson_distillation([-x for x in teacher], teacher) > 1.9 * len(LEVELS)


def test_a_constant_channel_costs_a_half_and_gets_no_gradient():
    student, teacher = torch.full((2, 1, 4, 3), 0.3), torch.randn(2, 1, 4, 3)
    student.requires_grad_()
    loss = pearson_distillation([student], [teacher])
    loss.backward()
    assert loss.item() == pytest.approx(0.5)  # the teacher's variance of 1, halved
    assert not student.grad.any()


def test_a_map_of_one_pixel_says_nothing():
    student = torch.randn(1, 4, 1, 1, requires_grad=True)
    loss = pearson_distillation([student], [torch.randn(1, 4, 1, 1)])
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()


def test_dense_heads_weigh_each_anchor_by_the_teacher_s_best_score():
    student, teacher = dense_outputs(), dense_outputs()
    cls = box = weights = 0
    for level, (height, width) in enumerate(LEVELS):
        for image, anchor, y, x in np.ndindex(2, ANCHORS, height, width):

            def at(output, kind, size, where=(level, image, anchor, y, x)):
                level, image, anchor, y, x = where
                channels = slice(anchor * size, (anchor + 1) * size)
                return output[kind][level][image, channels, y, x].tolist()

            targets = [sigmoid(logit) for logit in at(teacher, 0, CLASSES)]
            scores = [sigmoid(logit) for logit in at(student, 0, CLASSES)]
            weights += max(targets)
            cls += max(targets) * sum(  # the divergence of two coins
                t * math.log(t / s) + (1 - t) * math.log((1 - t) / (1 - s))
                for t, s in zip(targets, scores, strict=True)
            )
            boxes = zip(at(student, 1, 4), at(teacher, 1, 4), strict=True)
            box += max(targets) * sum(abs(a - b) for a, b in boxes)
    found = [float(loss) for loss in dense_head_distillation(student, teacher, CLASSES)]
    assert found == pytest.approx([cls / weights, box / weights], rel=1e-9)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_softmaxes_are_compared_at_a_temperature(temperature):
    student, teacher = logits(), logits()
    expected = 0
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = ([math.exp(v / temperature) for v in row] for row in (ours, theirs))
        p, q = ([v / sum(row) for v in row] for row in (p, q))
        expected += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)) / 5
    found = softmax_distillation(student, teacher, temperature)
    assert float(found) == pytest.approx(temperature**2 * expected, rel=1e-9)


@pytest.mark.parametrize('shared', [False, True])
def test_boxes_of_rois_are_those_of_the_teacher_s_best_class(shared):
    student, teacher = (logits(columns=4 if shared else 4 * CLASSES) for _ in range(2))
    scores = logits()
    total = weights = 0
    for roi, row in enumerate(scores.tolist()):
        q = [math.exp(v) / sum(map(math.exp, row)) for v in row]
        first = 0 if shared else 4 * q.index(max(q[:-1]))
        difference = (student - teacher)[roi, first : first + 4].tolist()
        weights += 1 - q[-1]
        total += (1 - q[-1]) * sum(map(abs, difference))
    found = roi_box_distillation(student, teacher, scores)
    assert float(found) == pytest.approx(total / weights, rel=1e-9)


LOSSES = {
    'pearson': (pearson_distillation, lambda **o: (maps(3, **o),)),
    'dense': (
        lambda s, t: sum(dense_head_distillation(s, t, CLASSES)),
        lambda **o: (dense_outputs(**o),),
    ),
    'softmax': (lambda s, t: softmax_distillation(s, t, 2.0), lambda **o: (logits(**o),)),
    'boxes': (
        lambda s, t: roi_box_distillation(s, t, torch.linspace(-2, 2, 20).view(5, 4)),
        lambda **o: (logits(columns=4 * CLASSES, **o),),
    ),
}


def tensors(tree):
    return [tree] if isinstance(tree, torch.Tensor) else [x for item in tree for x in tensors(item)]


def rebuilt(tree, leaves):
    if isinstance(tree, torch.Tensor):
        return next(leaves)
    return tuple(rebuilt(item, leaves) for item in tree)


@pytest.mark.parametrize('name', LOSSES)
def test_gradients_are_those_of_the_values(name):
    loss, draw = LOSSES[name]
    (student,), (teacher,) = draw(requires_grad=True), draw()

    def of_leaves(*leaves):
        return loss(rebuilt(student, iter(leaves)), teacher)

    leaves = [x.detach().requires_grad_() for x in tensors(student)]
    assert torch.autograd.gradcheck(of_leaves, leaves)


@pytest.mark.parametrize('name', LOSSES)
def test_nothing_is_lost_where_both_agree_and_the_teacher_learns_nothing(name):
    loss, draw = LOSSES[name]
    (student,), (teacher,) = draw(requires_grad=True), draw(requires_grad=True)
    assert loss(student, student).item() == pytest.approx(0, abs=1e-12)
    value = loss(student, teacher)
    assert value > 0.01
    value.backward()
    assert all(x.grad is None for x in tensors(teacher))


@pytest.mark.parametrize('name', LOSSES)
def test_half_precision_is_computed_in_float32(name):
    loss, draw = LOSSES[name]

    def converted(tree, dtype):
        return rebuilt(tree, iter([x.to(dtype) for x in tensors(tree)]))

    (student,), (teacher,) = draw(), draw()
    halves = [converted(tree, torch.bfloat16) for tree in (student, teacher)]
    value = loss(*halves)
    assert value.dtype == torch.float32
    expected = loss(*(converted(tree, torch.float64) for tree in halves))
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_without_a_roi_there_is_no_loss():
    scores, boxes = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 12, requires_grad=True)
    losses = softmax_distillation(scores, scores), roi_box_distillation(boxes, boxes, scores)
    assert [loss.item() for loss in losses] == [0, 0]
    sum(losses).backward()
