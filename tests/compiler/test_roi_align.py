import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import RoIAlign
from torch import nn

from mmdet_groupconv.compiler import compact
from mmdet_groupconv.compiler.roi_align import CompactRoIAlign


def boxes(number, images, height, width, spread):
    """Of all sizes, some beyond the map."""
    torch.manual_seed(0)
    corners = torch.rand(number, 2, 2) * torch.tensor([width, height]) * spread
    corners = corners - (spread - 1) / 2 * torch.tensor([width, height])
    image = torch.randint(images, (number, 1)).float()
    return torch.cat((image, corners.amin(dim=1), corners.amax(dim=1)), dim=1)


@settings(deadline=None, max_examples=60)
@given(
    images=st.integers(1, 3),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    ratio=st.integers(0, 3),
    aligned=st.booleans(),
    scale=st.sampled_from([1.0, 0.25, 1 / 32]),
    spread=st.sampled_from([0.1, 1.0, 2.0]),
)
def test_equals_mmcv_s(images, height, width, size, ratio, aligned, scale, spread):
    layer = RoIAlign(size, scale, ratio, aligned=aligned)
    x = torch.randn(images, 5, height, width)
    rois = boxes(20, images, height / scale, width / scale, spread)
    expected = layer(x, rois)
    for layout in (torch.contiguous_format, torch.channels_last):
        y = CompactRoIAlign(layer)(x.contiguous(memory_format=layout), rois)
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('aligned', [True, False])
def test_boxes_without_area(aligned):
    layer = RoIAlign(2, 1.0, 0, aligned=aligned)
    x = torch.randn(1, 3, 6, 6)
    rois = torch.tensor([[0, 2, 2, 2, 5], [0, 3, 3, 3, 3.0]])
    torch.testing.assert_close(CompactRoIAlign(layer)(x, rois), layer(x, rois))


def test_boxes_inside_out():
    x, rois = torch.randn(1, 3, 6, 6), torch.tensor([[0, 4, 4, 1, 1.0]])
    assert not CompactRoIAlign(RoIAlign(2))(x, rois).any()  # which mmcv's compiled one refuses
    layer = RoIAlign(2, aligned=False)
    torch.testing.assert_close(CompactRoIAlign(layer)(x, rois), layer(x, rois))


def test_many_samples_are_summed_in_parts(monkeypatch):
    monkeypatch.setattr('mmdet_groupconv.compiler.roi_align._PIXELS', 500)
    layer = RoIAlign(3, 1.0, 2)
    x, rois = torch.randn(2, 4, 9, 9), boxes(30, 2, 9, 9, 1.0)
    torch.testing.assert_close(CompactRoIAlign(layer)(x, rois), layer(x, rois))


def test_no_boxes_give_none():
    layer = RoIAlign(7, 0.25, 0)
    x, rois = torch.randn(1, 4, 8, 8), torch.zeros(0, 5)
    assert CompactRoIAlign(layer)(x, rois).shape == (0, 4, 7, 7)


@pytest.mark.parametrize(
    ('mode', 'kind'), [('avg', CompactRoIAlign), ('max', RoIAlign)], ids=['avg', 'max']
)
def test_compact_replaces_what_it_knows(mode, kind):
    layer = RoIAlign(7, 0.25, 0, pool_mode=mode)
    assert type(compact(nn.ModuleList([layer]))[0]) is kind
    assert type(layer) is RoIAlign
