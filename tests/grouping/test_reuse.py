"""What a layer gave is taken again where it gets the same."""

import pytest
import torch
from torch import nn

from mmdet_groupconv.grouping.reuse import ReusedOutputs


class Counting(nn.Conv2d):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Network(nn.Module):
    """Two towers behind a stem, one layer in both of them, rectified in place."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.other, self.both = (Counting(3, 3, 1) for _ in range(4))

    def forward(self, x):
        x = self.stem(x).relu_()
        return self.both(self.one(x).relu_()), self.both(self.other(x).relu_())

    def calls(self):
        return [layer.calls for layer in self.children()]


@pytest.fixture
def network():
    return Network()


@torch.no_grad()
def run(network, images):
    return [y for x in images for y in network(x)]


IMAGES = torch.randn(2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('name', ['stem', 'one', 'other', 'both'])
def test_outputs_are_those_of_the_changed_network(network, name):
    reused = ReusedOutputs(network)
    with reused.one_pass(None):
        first = run(network, IMAGES)
    assert all(map(torch.equal, first, run(network, IMAGES)))
    nn.init.normal_(network.get_submodule(name).weight)
    for _ in range(2):
        with reused.one_pass(network.get_submodule(name)):
            found = run(network, IMAGES)
        assert all(map(torch.equal, found, run(network, IMAGES)))


def test_what_is_before_and_beside_the_changed_layer_is_not_computed(network):
    reused = ReusedOutputs(network)
    with reused.one_pass(None):
        run(network, IMAGES)
    nn.init.normal_(network.one.weight)
    before = network.calls()
    with reused.one_pass(network.one):
        run(network, IMAGES)
    added = [now - then for now, then in zip(network.calls(), before, strict=True)]
    assert added == [0, 2, 0, 2]  # of both images, and the shared one in the changed tower


def test_a_layer_that_is_forgotten_is_computed_once_more(network):
    reused = ReusedOutputs(network)
    with reused.one_pass(None):
        run(network, IMAGES)
    for name, computed in (('one', [0, 2, 0, 2]), ('stem', [2, 2, 2, 4])):
        nn.init.normal_(network.get_submodule(name).weight)
        expected, before = run(network, IMAGES), network.calls()
        reused.forget(network.get_submodule(name))
        for _ in range(2):  # the second time all is known again
            with reused.one_pass(None):
                assert all(map(torch.equal, run(network, IMAGES), expected))
        added = [now - then for now, then in zip(network.calls(), before, strict=True)]
        assert added == computed


def test_what_is_forgotten_gives_its_memory_back(network):
    reused = ReusedOutputs(network, most=IMAGES[0].nbytes)  # the stem's of one image
    for calls in ([1, 1, 1, 2], [2, 2, 2, 4], [2, 3, 3, 6]):
        with reused.one_pass(None):
            run(network, IMAGES[:1])
        assert network.calls() == calls
        if calls[0] == 1:
            reused.forget(network.stem)


def test_what_does_not_fit_into_memory_is_computed(network):
    reused = ReusedOutputs(network, most=0)
    with reused.one_pass(None):
        run(network, IMAGES)
    with reused.one_pass(network.one):
        run(network, IMAGES)
    assert network.calls() == [4, 4, 4, 8]


def test_layers_that_take_a_gate_are_computed():
    class Gated(nn.Conv2d):
        def forward(self, x, gate):
            return gate * super().forward(x)

    layer, gates = Gated(3, 3, 1), [1.0, 2.0]
    network = nn.ModuleList([layer, nn.Linear(2, 2)])
    reused = ReusedOutputs(network)
    for gate, differs in zip(gates, (None, network[1]), strict=True):
        with reused.one_pass(differs):
            found = layer(IMAGES[0], gate)
        assert torch.equal(found, layer(IMAGES[0], gate))


def test_layers_are_left_as_they_were(network):
    with pytest.raises(RuntimeError), ReusedOutputs(network).one_pass(None):
        run(network, [torch.zeros(1, 2, 3, 3)])
    assert not any('forward' in vars(layer) for layer in network.children())
