"""What grouping one layer costs, measured."""

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_groupconv.grouping import (
    Groups,
    MeasuredLoss,
    mean_loss,
    output_change,
    output_slopes,
    taylor_importance,
)
from mmdet_groupconv.layers import FixedGroupConv2d


def own(network):
    """Weights as they are in the dense network, whatever the groups."""
    dense = {name: layer.weight.detach().clone() for name, layer in network.named_children()}
    return lambda name, groups: dense[name]


HALVES = Groups(2, np.arange(4) // 2, np.arange(4) // 2, 0.5)


@pytest.fixture
def network():
    return nn.Sequential(*(FixedGroupConv2d(4, 4, 1, groups=2) for _ in range(2))).double()


def test_is_the_rise_of_the_loss_with_one_layer_grouped(network):
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    loss = MeasuredLoss(network, ['0', '1'], own(network), lambda: float(network(x).square().sum()))
    y = x
    for number, layer in enumerate(network):
        weight = layer.weight.detach().clone()
        if number == 1:
            mask = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).double()
            weight = weight * mask[..., None, None]
        y = nn.functional.conv2d(y, weight, layer.bias)
    expected = float(y.square().sum()) - loss.dense
    assert loss('1', HALVES) == pytest.approx(max(expected, 0))


def test_measures_with_the_weights_of_such_groups(network):
    halved = own(network)
    loss = MeasuredLoss(
        network,
        ['0', '1'],
        lambda name, groups: halved(name, groups) * (1 if groups is None else 2),
        lambda: float(network[0].weight.square().sum()),
    )
    assert loss('0', HALVES) == pytest.approx(3 * loss.dense)


def test_leaves_the_network_dense(network):
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    loss = MeasuredLoss(network, ['0', '1'], own(network), lambda: float(network(x).square().sum()))
    before = network(x)
    loss('0', HALVES)
    assert torch.equal(network(x), before)
    assert [layer.equal_groups for layer in network] == [1, 1]


def test_a_fall_of_the_loss_counts_as_none(network):
    values = iter([1.0, 0.5])
    assert MeasuredLoss(network, ['0'], own(network), lambda: next(values))('0', HALVES) == 0


def test_mean_loss_makes_the_losses_anew():
    numbers = iter(range(10))
    evaluate = mean_loss(lambda: (torch.tensor(float(next(numbers))) for _ in range(2)))
    assert [evaluate(), evaluate()] == [0.5, 2.5]


def test_output_change_is_relative_to_the_first_outputs():
    scale = [1.0]
    x = torch.tensor([3.0, 4.0])
    evaluate = output_change([lambda: (x * scale[0], [x * scale[0] ** 2])])
    assert evaluate() == 0
    scale[0] = 2.0
    assert evaluate() == pytest.approx((1 + 9) / 2)


def test_output_slopes_foretell_what_a_cut_connection_changes():
    network = nn.Linear(3, 4, bias=False).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    forwards = [lambda: [network(x[:1]), dict()], lambda: network(x[1:])]
    importance = taylor_importance(nn.Sequential(network), ['0'], output_slopes(forwards))['0']
    evaluate = output_change(forwards)
    evaluate()
    weight = network.weight.detach().clone()
    for at in np.ndindex(4, 3):
        with torch.no_grad():
            network.weight.copy_(weight)
            network.weight[at] = 0
        assert importance[at] == pytest.approx(evaluate())


def test_output_slopes_of_several_outputs_are_their_mean():
    w = torch.nn.Parameter(torch.tensor([[2.0]]))
    network = nn.Linear(1, 1, bias=False)
    network.weight = w
    forwards = [lambda seed=seed: (network(torch.ones(1, 1)), 0 * w + 1) for seed in range(64)]
    importance = taylor_importance(nn.Sequential(network), ['0'], output_slopes(forwards))['0']
    assert importance.item() == pytest.approx(1 / 2)  # one changes by all of itself, one doesn't
