import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.compat.roi_align_gradient import roi_align_gradient


def boxes(number, images, height, width, spread):
    """Of all sizes, some beyond the map, one without area."""
    corners = torch.rand(number, 2, 2) * torch.tensor([width, height]) * spread
    corners = corners - (spread - 1) / 2 * torch.tensor([width, height])
    image = torch.randint(images, (number, 1)).float()
    rois = torch.cat((image, corners.amin(dim=1), corners.amax(dim=1)), dim=1).double()
    rois[0, 3] = rois[0, 1]
    return rois


@settings(deadline=None, max_examples=80)
@given(
    images=st.integers(1, 3),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    ratio=st.integers(0, 3),
    aligned=st.booleans(),
    scale=st.sampled_from([1.0, 0.25, 1 / 32]),
    spread=st.sampled_from([0.1, 1.0, 2.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_torchvision_s(images, height, width, size, ratio, aligned, scale, spread, dtype):
    torch.manual_seed(0)
    x = torch.randn(images, 5, height, width, dtype=torch.float64, requires_grad=True)
    rois = boxes(10, images, height / scale, width / scale, spread)
    rois = rois.to(dtype)  # one grid of samples for both, whatever the type rounds to
    y = torchvision.ops.roi_align(x.to(dtype), rois, size, scale, ratio, aligned)
    grad = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, grad)
    found = roi_align_gradient(grad, rois, x.shape, scale, ratio, aligned)
    tolerance = 1e-4 if dtype is torch.float32 else 1e-11
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


def test_no_boxes():
    none, shape = torch.zeros(0, 5, 2, 2), (2, 5, 3, 4)
    grad = roi_align_gradient(none, torch.zeros(0, 5), shape, 1.0, 0, True)
    assert grad.equal(torch.zeros(shape))


def test_the_same_boxes_give_the_same_gradient_bit_for_bit():
    torch.manual_seed(0)
    rois, grad = boxes(30, 2, 9, 9, 1.0).float(), torch.randn(30, 8, 7, 7)
    first, second = (roi_align_gradient(grad, rois, (2, 8, 9, 9), 1.0, 0, True) for _ in range(2))
    assert first.equal(second)
