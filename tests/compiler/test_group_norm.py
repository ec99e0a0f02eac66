import copy
import pickle

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmcv.cnn import ConvModule
from torch import nn

from mmdet_groupconv.compiler import compact
from mmdet_groupconv.compiler.group_norm import CompactGroupNorm


def random_norm(groups, channels, affine=True):
    norm = nn.GroupNorm(groups, channels, affine=affine).eval().requires_grad_(False)
    if affine:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    return norm


@settings(deadline=None, max_examples=40)
@given(
    images=st.integers(1, 3),
    groups=st.integers(1, 8),
    size=st.integers(1, 6),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    affine=st.booleans(),
    form=st.sampled_from(['own', 'matrices']),
)
def test_every_form_equals_torch_s(images, groups, size, height, width, affine, form):
    assume(images * size * height * width > 1)  # which PyTorch refuses
    torch.manual_seed(0)
    norm = random_norm(groups, groups * size, affine).double()
    fast = CompactGroupNorm(norm)
    fast.forms.choose = lambda x, names, run, out: form
    x = 3 + 2 * torch.randn(images, groups * size, height, width, dtype=torch.float64)
    expected = norm(x)
    for layout in (torch.contiguous_format, torch.channels_last):
        y = fast(x.contiguous(memory_format=layout))
        torch.testing.assert_close(y, expected, atol=1e-8, rtol=1e-8)


def test_single_precision_is_kept():
    torch.manual_seed(0)
    norm = random_norm(8, 32)
    fast = CompactGroupNorm(norm)
    fast.forms.choose = lambda x, names, run, out: 'matrices'
    x = 3 + 2 * torch.randn(2, 32, 9, 7)
    torch.testing.assert_close(fast(x), norm(x), atol=1e-5, rtol=1e-5)


def test_the_faster_form_is_found_by_trying():
    fast = CompactGroupNorm(random_norm(2, 8))
    seen = []
    fast.forms.choose = lambda x, names, run, out: seen.append(list(names)) or 'own'
    fast(torch.randn(1, 8, 4, 4))
    assert seen == [['own', 'matrices']]


def test_no_images():
    fast = CompactGroupNorm(random_norm(2, 8))
    assert fast(torch.randn(0, 8, 4, 4)).shape == (0, 8, 4, 4)


def test_the_input_is_left_alone():
    fast = CompactGroupNorm(random_norm(2, 8, affine=False))
    x = torch.randn(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    fast(x)
    assert x.equal(before)


def test_copies_and_pickles_work():
    fast = CompactGroupNorm(random_norm(2, 8))
    x = torch.randn(1, 8, 4, 4)
    y = fast(x)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        torch.testing.assert_close(other(x), y)


@pytest.mark.parametrize(
    'network',
    [
        nn.Sequential(nn.Conv2d(3, 8, 3), random_norm(2, 8)),
        ConvModule(3, 8, 3, norm_cfg=dict(type='GN', num_groups=2)),
    ],
    ids=['in a sequence', 'in a ConvModule'],
)
def test_compact_takes_it(network):
    network.eval()
    fast = compact(network)
    assert any(isinstance(module, CompactGroupNorm) for module in fast.modules())
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(fast(x), network(x), atol=1e-5, rtol=1e-5)
