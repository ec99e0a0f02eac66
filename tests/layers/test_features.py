"""Gated features are made again in the backward pass."""

import pytest
import torch
import torch.nn.functional as F

from mmdet_groupconv.layers.features import convolve_features, gated
from mmdet_groupconv.layers.functional import grouped_conv2d

GEOMETRY = 2, 1, 1


def inputs(dtype=torch.float64):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 5, 4, dtype=dtype), torch.randn(4, 3, 3, 3, dtype=dtype)
    gate, bias = torch.randn(2, 2, 3, dtype=dtype), torch.randn(4, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (x, weight, gate, bias)]


def by_definition(x, weight, gate, bias):
    copies = torch.cat([x * gate[:, g, :, None, None] for g in range(gate.size(1))], dim=1)
    return F.conv2d(copies, weight, bias, *GEOMETRY, groups=gate.size(1))


def test_value_and_gradients_are_those_of_kept_features():
    x, weight, gate, bias = learned = inputs()
    ours, expected = convolve_features(x, weight, gate, bias, GEOMETRY), by_definition(*learned)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad(ours, learned, upstream),
        torch.autograd.grad(expected, learned, upstream),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('learned', range(3))
def test_what_needs_no_gradient_gets_none(learned):
    x, weight, gate, _ = tensors = [tensor.detach() for tensor in inputs()]
    tensors[learned].requires_grad_()
    convolve_features(x, weight, gate, None, GEOMETRY).sum().backward()
    assert [tensor.grad is not None for tensor in tensors] == [i == learned for i in range(4)]


def test_no_features_are_kept():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        x, weight, gate, bias = inputs()
        convolve_features(x, weight, gate, bias, GEOMETRY)
    assert {tensor.shape for tensor in kept} == {x.shape, weight.shape, gate.shape}


def test_autocast_computes_in_half_precision_and_learns_in_single():
    learned = inputs(torch.float32)
    x, weight, gate, bias = learned
    with torch.autocast('cpu', torch.bfloat16):
        y = convolve_features(x, weight, gate, bias, GEOMETRY)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in learned)
    torch.testing.assert_close(y.float(), by_definition(*learned), atol=0.2, rtol=0.05)


def test_padding_in_words_is_understood():
    x, weight, gate, bias = inputs()
    found = grouped_conv2d(x, weight, gate, None, bias, padding='same')
    torch.testing.assert_close(found, grouped_conv2d(x, weight, gate, None, bias, padding=1))


def test_each_group_has_its_copy():
    x, gate = torch.tensor([[[[1.0]], [[2.0]]]]), torch.tensor([[[1.0, 0.0], [3.0, 5.0]]])
    assert gated(x, gate).flatten().tolist() == [1, 0, 3, 10]
