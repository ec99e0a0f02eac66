"""The stem's bands add up to the map."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.compiler import stem
from mmdet_groupconv.compiler.fused import NONE, RELU, Geometry
from mmdet_groupconv.compiler.static import StaticConv
from mmdet_groupconv.compiler.stem import CompactStem

several = settings(max_examples=80, deadline=None, derandomize=True)
CLOSE = dict(rtol=1e-4, atol=1e-4)


def a_unit(kernel=7, stride=2, padding=3, activation=RELU):
    weight, bias = torch.randn(4, 3, kernel, kernel), torch.randn(4)
    geometry = Geometry((stride, stride), (padding, padding), (1, 1))
    return StaticConv(weight, bias, geometry, activation)


def pooled(x, unit):
    y = unit.activation.plain(F.conv2d(x, unit.weight, unit.bias, *unit.geometry))
    return F.max_pool2d(y, 3, stride=2, padding=1)


@several
@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 40),
    width=st.integers(1, 20),
    band=st.integers(1, 200),
    activation=st.sampled_from([RELU, NONE]),  # maxima may be negative, or not
)
def test_bands_of_any_height_give_the_pooled_map(batch, height, width, band, activation):
    unit, x = a_unit(activation=activation), torch.randn(batch, 3, height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stem, '_BAND', band)
        torch.testing.assert_close(CompactStem(unit)(x), pooled(x, unit), **CLOSE)


@several
@given(
    kernel=st.sampled_from([3, 5]),
    stride=st.integers(1, 3),
    height=st.integers(5, 30),
    width=st.integers(5, 12),
)
def test_convolutions_of_any_stride(kernel, stride, height, width):
    unit, x = a_unit(kernel, stride, kernel // 2), torch.randn(1, 3, height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stem, '_BAND', 64)
        torch.testing.assert_close(CompactStem(unit)(x), pooled(x, unit), **CLOSE)


def test_one_band_where_the_map_is_small():
    unit, x = a_unit(), torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(CompactStem(unit)(x), pooled(x, unit), **CLOSE)


def test_plain_operations_do_the_same():
    unit, x = a_unit().double(), torch.randn(2, 3, 33, 47, dtype=torch.float64)
    torch.testing.assert_close(CompactStem(unit)(x), pooled(x, unit))


def test_the_precision_is_the_images_whatever_the_default():
    unit, x = a_unit(), torch.randn(1, 3, 32, 32)
    torch.set_default_dtype(torch.float64)
    try:
        assert CompactStem(unit)(x).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
