import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_groupconv.layers import SGCConv2d, SGCLinear

LAYERS = pytest.mark.parametrize(
    ('layer_type', 'dense_type', 'arguments', 'x'),
    [
        (SGCConv2d, nn.Conv2d, dict(kernel_size=3, padding=1), torch.ones(2, 6, 5, 5)),
        (SGCLinear, nn.Linear, {}, torch.ones(2, 6)),
    ],
    ids=['conv', 'linear'],
)


def half(layer):
    """Half of the connections left, at random."""
    torch.manual_seed(0)
    layer.mask.copy_((torch.rand_like(layer.mask) < 0.5).float())
    return layer


@pytest.mark.parametrize('index', range(2))
def test_equals_the_published_layer(golden_sgc_layers, index):
    case = golden_sgc_layers[index]
    size = case['kernel_size']
    layer = SGCConv2d(
        case['in_channels'],
        case['out_channels'],
        size,
        padding=size // 2,
        bias=False,
        groups=case['groups'],
    )
    layer.load_state_dict({'weight': case['weight'], 'mask': case['steps'][-1]['mask_after']})
    torch.testing.assert_close(layer(case['x']), case['y'], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('index', range(2))
def test_importance_is_what_the_published_centroids_are_means_of(golden_sgc_layers, index):
    case = golden_sgc_layers[index]
    layer = SGCConv2d(case['in_channels'], case['out_channels'], case['kernel_size'])
    layer.weight.data.copy_(case['weight'])
    for step in case['steps']:
        layer.mask.copy_(step['mask_before'])
        members = F.one_hot(step['labels']).t().float()  # [G, K]
        means = members @ layer.importance() / members.sum(dim=1, keepdim=True)
        torch.testing.assert_close(means, step['centroids'], atol=1e-5, rtol=1e-5)


def test_importance_is_the_sum_of_what_is_left_of_each_kernel():
    layer = SGCConv2d(2, 2, (1, 2))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, -2]], [[3, 4]]], [[[0, 5]], [[-6, -7]]]]))
        layer.mask[1, 0] = 0
    assert layer.importance().tolist() == [[3, 7], [0, 13]]


def test_importance_of_a_linear_layer_is_what_is_left_of_its_weight():
    layer = SGCLinear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2], [-3, 4]]))
        layer.mask[0, 0] = 0
    assert layer.importance().tolist() == [[0, 2], [3, 4]]


@LAYERS
def test_starts_as_the_dense_layer(layer_type, dense_type, arguments, x):
    layer, dense = layer_type(6, 8, **arguments), dense_type(6, 8, **arguments)
    missing = layer.load_state_dict(dense.state_dict(), strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (['mask'], [])
    torch.testing.assert_close(layer(x), dense(x))


@LAYERS
def test_what_is_pruned_is_not_read(layer_type, dense_type, arguments, x):
    layer, dense = half(layer_type(6, 8, **arguments)), dense_type(6, 8, **arguments)
    with torch.no_grad():
        dense.bias.copy_(layer.bias)
        for k in range(8):
            for c in range(6):
                dense.weight[k, c] = layer.weight[k, c] if layer.mask[k, c] else 0
    x = torch.randn_like(x)
    torch.testing.assert_close(layer(x), dense(x))


@LAYERS
def test_what_is_pruned_gets_no_gradient(layer_type, dense_type, arguments, x):
    layer = half(layer_type(6, 8, **arguments))
    layer(torch.randn_like(x)).square().sum().backward()
    touched = layer.weight.grad.flatten(2).abs().sum(dim=2) if arguments else layer.weight.grad
    assert torch.equal(touched != 0, layer.mask == 1)


@LAYERS
def test_gate_is_a_row_a_filter(layer_type, dense_type, arguments, x):
    layer, calls = half(layer_type(6, 8, **arguments)), []
    layer.register_gate_hook(lambda *args: calls.append(args))
    y = layer(x)
    ((shown, gate, given, output),) = calls
    assert shown is layer
    assert layer.static_gate
    assert given is x
    assert output is y
    assert torch.equal(gate.mask, layer.mask[None])
    assert gate.strength is gate.assign is None


@LAYERS
def test_mask_is_kept_in_checkpoints(layer_type, dense_type, arguments, x):
    layer, other = half(layer_type(6, 8, **arguments)), layer_type(6, 8, **arguments)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.mask, layer.mask)


@LAYERS
def test_groups_that_are_no_count_raise(layer_type, dense_type, arguments, x):
    for groups in (0, -2, 1.5):
        message = rf'groups={groups} of {layer_type.__name__}, expected an integer of 1 or more'
        with pytest.raises(ValueError, match=message):
            layer_type(6, 8, **arguments, groups=groups)


def test_groups_are_clusters_not_those_of_torch():
    layer = SGCConv2d(6, 8, 1, groups=3)
    assert (layer.clusters, layer.groups) == (3, 1)
    assert layer.weight.shape == (8, 6, 1, 1)


def test_sixteen_clusters_unless_told():
    assert SGCConv2d(6, 8, 1).clusters == SGCLinear(6, 8).clusters == 16
