"""Each operator of the stand-in against a slow reference written here."""

import math

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.compat import torchvision_ops as ops

few = settings(max_examples=40, deadline=None)
devices = pytest.mark.parametrize(
    'device',
    [
        'cpu',
        pytest.param(
            'cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
        ),
    ],
)
# Small integers make equal scores and equal overlaps common, and the arithmetic exact.
box = st.tuples(*[st.integers(0, 9)] * 2, *[st.integers(1, 6)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def iou(a, b, offset):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    return np.float32(width * height) / np.float32(sum(areas) - width * height)


def slow_nms(boxes, scores, threshold, offset):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j], offset) <= np.float32(threshold) for j in kept):
            kept.append(i)
    return kept


def slow_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    """The loop of mmcv: the best goes to the front, a dropped box is replaced by the last."""
    alive = [[i, tuple(boxes[i]), np.float32(scores[i])] for i in range(len(boxes))]
    front = 0
    while front < len(alive):
        best = max(range(front, len(alive)), key=lambda i: (alive[i][2], -i))
        alive[front], alive[best] = alive[best], alive[front]
        at = front + 1
        while at < len(alive):
            overlap = iou(alive[front][1], alive[at][1], offset)
            if method == 2:
                alive[at][2] *= np.float32(math.exp(-(overlap**2) / sigma))
            elif overlap >= np.float32(threshold):
                alive[at][2] *= np.float32(0) if method == 0 else np.float32(1) - overlap
            if alive[at][2] < np.float32(min_score):
                alive[at] = alive[-1]
                alive.pop()
            else:
                at += 1
        front += 1
    return [a[0] for a in alive], [[*a[1], a[2]] for a in alive]


def soft_nms(boxes, scores, *settings_):
    dets = torch.full((len(boxes), 5), -1.0)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    inds = ops.softnms(boxes, torch.tensor(scores, dtype=torch.float32), dets, *settings_)
    return inds, dets[: len(inds)]


@few
@given(
    st.lists(box, min_size=1, max_size=12),
    st.sampled_from([0.1, 0.3, 0.5, 0.6, 0.7]),
    st.sampled_from([0, 1]),
    st.randoms(use_true_random=False),
)
def test_nms_keeps_what_a_loop_over_pairs_keeps(boxes, threshold, offset, random):
    scores = random.sample(range(1, 100), len(boxes))

    inds = ops.nms(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(scores, dtype=torch.float32),
        threshold,
        offset,
    )

    assert inds.tolist() == slow_nms(boxes, scores, threshold, offset)


def test_nms_keeps_a_box_whose_overlap_equals_the_float32_threshold():
    boxes = torch.tensor([[0.0, 0, 5, 1], [0, 0, 3, 1]])

    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.6, 0).tolist() == [0, 1]


@devices
def test_nms_takes_half_boxes_with_float_scores(device):
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [8, 8, 9, 9]], device=device).half()
    scores = torch.tensor([0.2, 0.9, 0.5], device=device)

    assert ops.nms(boxes, scores, 0.5, 1).tolist() == [1, 2]


def test_nms_of_no_boxes_is_empty():
    inds = ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 1)

    assert inds.shape == (0,)
    assert inds.dtype == torch.int64


@few
@given(
    st.lists(st.tuples(box, st.integers(1, 4)), min_size=1, max_size=12),
    st.sampled_from([0.1, 0.3, 0.6]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0, 1]),
    st.sampled_from([0, 1]),
)
def test_soft_nms_orders_equal_scores_as_the_loop_of_mmcv(
    scored, threshold, min_score, method, offset
):
    boxes, scores = [b for b, _ in scored], [s / 4 for _, s in scored]
    arguments = (threshold, 0.5, min_score, method, offset)

    inds, dets = soft_nms(boxes, scores, *arguments)
    slow_inds, slow_dets = slow_soft_nms(boxes, scores, *arguments)

    assert inds.tolist() == slow_inds
    assert np.array_equal(dets.numpy(), np.array(slow_dets, dtype=np.float32))


@pytest.mark.parametrize('offset', [0, 1])
def test_gaussian_soft_nms_decays_scores_as_the_loop_of_mmcv(offset):
    rng = np.random.default_rng(offset)
    corners = rng.integers(0, 12, (40, 2))
    boxes = np.concatenate((corners, corners + rng.integers(1, 9, (40, 2))), axis=1).tolist()
    scores = rng.permutation(np.linspace(0.05, 0.97, 40)).tolist()
    arguments = (0.3, 0.5, 0.02, 2, offset)

    inds, dets = soft_nms(boxes, scores, *arguments)
    slow_inds, slow_dets = slow_soft_nms(boxes, scores, *arguments)

    assert 1 < len(slow_inds) < 40
    assert inds.tolist() == slow_inds
    np.testing.assert_allclose(dets.numpy(), np.array(slow_dets, dtype=np.float32), rtol=1e-5)


def test_soft_nms_of_no_boxes_is_empty():
    inds, dets = soft_nms([], [], 0.3, 0.5, 0.1, 1, 0)

    assert inds.shape == (0,)
    assert dets.shape == (0, 5)


def test_soft_nms_refuses_an_unknown_method():
    with pytest.raises(ValueError, match='got 3'):
        soft_nms([(0, 0, 1, 1)], [0.5], 0.3, 0.5, 0.1, 3, 0)


def feature_and_rois(device='cpu', dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(2, 3, 7, 9, generator=generator)
    rois = torch.tensor(
        [[0.0, 1, 2, 13, 9], [1, 4, 0, 9, 12], [1, 15, 11, 30, 20], [0, 3, 3, 3, 3]]
    )
    return feature.to(device, dtype), rois.to(device, dtype)


def roi_align(feature, rois, sampling_ratio=0, aligned=True, scale=0.5, size=(2, 3)):
    output = feature.new_full((len(rois), feature.size(1), *size), 7.0)
    empty = feature.new_zeros(0)
    ops.roi_align_forward(
        feature, rois, output, empty, empty, *size, scale, sampling_ratio, 1, aligned
    )
    return output


def bilinear(plane, y, x):
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = (min(max(v, 0.0), n - 1.0) for v, n in ((y, height), (x, width)))
    top, left = int(y), int(x)
    value = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            share = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
            if share:
                value += share * float(plane[row, column])
    return value


def slow_roi_align(feature, rois, sampling_ratio, aligned, scale=0.5, size=(2, 3)):
    output = np.zeros((len(rois), feature.size(1), *size))
    for k, roi in enumerate(rois.tolist()):
        left, top, right, bottom = (v * scale - 0.5 * aligned for v in roi[1:])
        height, width = bottom - top, right - left
        if not aligned:
            height, width = max(height, 1.0), max(width, 1.0)
        rows = sampling_ratio or math.ceil(height / size[0])
        columns = sampling_ratio or math.ceil(width / size[1])
        for c, i, j in np.ndindex(output.shape[1:]):
            samples = [
                bilinear(
                    feature[int(roi[0]), c],
                    top + (i + (r + 0.5) / rows) * height / size[0],
                    left + (j + (s + 0.5) / columns) * width / size[1],
                )
                for r in range(rows)
                for s in range(columns)
            ]
            output[k, c, i, j] = sum(samples) / max(len(samples), 1)
    return output


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_averages_bilinear_samples(sampling_ratio, aligned):
    feature, rois = feature_and_rois()

    output = roi_align(feature, rois, sampling_ratio, aligned)

    expected = slow_roi_align(feature, rois, sampling_ratio, aligned)
    np.testing.assert_allclose(output.numpy(), expected, atol=1e-5)


@devices
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_backward_adds_the_gradient_of_torchvisions_roi_align(aligned, device):
    feature, rois = feature_and_rois(device)
    feature.requires_grad_()
    pooled = torchvision.ops.roi_align(feature, rois, (2, 3), 0.5, 2, aligned)
    grad_output = torch.randn_like(pooled)
    (expected,) = torch.autograd.grad(pooled, feature, grad_output)

    grad_input = torch.ones_like(feature)
    empty = rois.new_zeros(0)
    # Strides of another layout, as a head that transposes its features leaves them.
    scattered = grad_output.transpose(2, 3).contiguous().transpose(2, 3)
    ops.roi_align_backward(
        scattered, rois, empty, empty, grad_input, 2, 3, 0.5, 2, pool_mode=1, aligned=aligned
    )

    torch.testing.assert_close(grad_input, 1 + expected)


@devices
def test_roi_align_reads_channels_last_features(device):
    feature, rois = feature_and_rois(device)

    output = roi_align(feature.to(memory_format=torch.channels_last), rois)

    torch.testing.assert_close(output, roi_align(feature, rois))


@devices
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_roi_align_of_half_features_rounds_only_the_result(dtype, device):
    feature, rois = feature_and_rois(device)
    feature = feature.to(dtype)

    output = roi_align(feature, rois)

    assert output.dtype == dtype
    assert torch.equal(output, roi_align(feature.float(), rois).to(dtype))


def test_roi_align_of_no_regions_is_empty_and_has_no_gradient():
    feature, rois = feature_and_rois()
    output = roi_align(feature, rois[:0])
    grad_input = torch.zeros_like(feature)
    empty = feature.new_zeros(0)

    ops.roi_align_backward(
        output, rois[:0], empty, empty, grad_input, 2, 3, 0.5, 0, pool_mode=1, aligned=True
    )

    assert output.shape == (0, 3, 2, 3)
    assert not grad_input.any()


def test_roi_align_refuses_max_pooling_both_ways():
    feature, rois = feature_and_rois()
    rest = {'aligned_height': 2, 'aligned_width': 3, 'spatial_scale': 0.5, 'sampling_ratio': 0}
    rest |= {'pool_mode': 0, 'aligned': True}

    with pytest.raises(NotImplementedError, match='max'):
        ops.roi_align_forward(feature, rois, feature, feature, feature, **rest)
    with pytest.raises(NotImplementedError, match='max'):
        ops.roi_align_backward(feature, rois, feature, feature, feature, **rest)


def slow_focal_loss(logits, target, weight, gamma, alpha):
    """The formula of the paper, in float64."""
    hot = torch.zeros_like(logits)
    for row, label in enumerate(target.tolist()):
        if label < logits.size(1):
            hot[row, label] = 1
    p = logits.sigmoid()
    right = hot * p + (1 - hot) * (1 - p)
    loss = -(hot * alpha + (1 - hot) * (1 - alpha)) * (1 - right) ** gamma * right.log()
    rows = [weight[label] if label < len(weight) else 1.0 for label in target.tolist()]
    return loss * torch.tensor(rows, dtype=logits.dtype, device=logits.device)[:, None]


@devices
@pytest.mark.parametrize(
    ('gamma', 'alpha', 'weight'),
    [(2.0, 0.25, []), (0.0, 0.5, [0.5, 2.0, 3.0, 0.25]), (1.5, 0.75, [0.5, 2.0, 3.0, 0.25])],
)
def test_focal_loss_and_gradient_match_the_formula_in_float64(gamma, alpha, weight, device):
    logits = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).to(device)
    target = torch.tensor([0, 3, 4, 1, 4, 2], device=device)
    exact = logits.double().requires_grad_()
    expected = slow_focal_loss(exact, target, weight, gamma, alpha)
    (slope,) = torch.autograd.grad(expected.sum(), exact)

    output, grad_input = torch.full_like(logits, 7), torch.full_like(logits, 7)
    weights = logits.new_tensor(weight)
    ops.sigmoid_focal_loss_forward(logits, target, weights, output, gamma, alpha)
    ops.sigmoid_focal_loss_backward(logits, target, weights, grad_input, gamma, alpha)

    torch.testing.assert_close(output, expected.detach().float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad_input, slope.float(), rtol=1e-5, atol=1e-6)


def test_focal_loss_of_certain_logits_is_finite_and_linear():
    logits = torch.tensor([[-300.0, 300.0]])
    target = torch.tensor([0])
    output, grad_input = torch.zeros_like(logits), torch.zeros_like(logits)

    ops.sigmoid_focal_loss_forward(logits, target, logits[:0], output, 2.0, 0.25)
    ops.sigmoid_focal_loss_backward(logits, target, logits[:0], grad_input, 2.0, 0.25)

    torch.testing.assert_close(output, torch.tensor([[75.0, 225.0]]))
    torch.testing.assert_close(grad_input, torch.tensor([[-0.25, 0.75]]))


@devices
def test_focal_loss_of_half_logits_rounds_only_the_result(device):
    logits = torch.linspace(-8, 8, 12, device=device).reshape(3, 4).half()
    target = torch.tensor([0, 4, 2], device=device)
    results = []
    for values in (logits, logits.float()):
        output = torch.zeros_like(values)
        ops.sigmoid_focal_loss_forward(values, target, values[:0], output, 2.0, 0.25)
        results.append(output)

    assert results[0].dtype == torch.float16
    assert torch.equal(results[0], results[1].half())
