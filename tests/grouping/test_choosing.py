"""Options of layers, few of them measured."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.grouping import Choice, Groups, allocate
from mmdet_groupconv.grouping.choosing import MeasuredChoice


def groups(number):
    return Groups(number, np.zeros(1, int), np.zeros(1, int), 1.0)


FOUR = [groups(number) for number in (2, 4, 8, 16)]


class Losses:
    """Known ones, which notes what is asked for."""

    def __init__(self, of_layers):
        self.of_layers = of_layers
        self.asked = []

    def __call__(self, name, option):
        self.asked.append((name, option.number))
        return self.of_layers[name][option.number]


def grows(first, factor):
    return {number: first * factor**power for power, number in enumerate((2, 4, 8, 16))}


def numbers(chosen):
    return {name: option.number if option else 1 for name, option in chosen.items()}


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(1e-3, 1), st.floats(1.1, 6)), min_size=1, max_size=4),
    st.floats(0.1, 0.9),
)
def test_finds_what_measuring_everything_finds_where_losses_grow_geometrically(layers, share):
    losses = Losses({str(at): grows(*layer) for at, layer in enumerate(layers)})
    macs = dict.fromkeys(losses.of_layers, 100.0)
    everything = {
        name: [Choice(100.0, 0.0), *(Choice(100.0 / n, loss) for n, loss in own.items())]
        for name, own in losses.of_layers.items()
    }
    budget = share * sum(macs.values())
    best = sum(everything[name][at].loss for name, at in allocate(everything, budget).items())
    chosen = MeasuredChoice(macs, losses)(dict.fromkeys(macs, FOUR), budget)
    lost = sum(losses.of_layers[name][option.number] for name, option in chosen.items() if option)
    assert lost == pytest.approx(best)
    done = sum(100.0 * (option.share if option else 1) for option in chosen.values())
    assert done <= budget * 1.01


def test_all_that_is_chosen_was_measured_and_not_all_else():
    losses = Losses(dict(dear=grows(5.0, 2), cheap=grows(0.1, 2)))
    choose = MeasuredChoice(dict(dear=100.0, cheap=100.0), losses)
    chosen = numbers(choose(dict(dear=FOUR, cheap=FOUR), 150.0))
    assert chosen == dict(dear=1, cheap=2)
    assert sorted(losses.asked) == [('cheap', 2), ('cheap', 16), ('dear', 2), ('dear', 16)]
    moved = [option._replace(channels=np.ones(1, int)) for option in FOUR]
    assert numbers(choose(dict(dear=moved, cheap=moved), 125.0)) == dict(dear=1, cheap=4)
    assert losses.asked[4:] == [('cheap', 4)]  # nothing twice, whichever the order of channels


def test_an_estimate_that_promised_too_much_is_not_chosen():
    """Of eight groups 0.0016 is expected, as much as they save; they lose 0.5."""
    losses = Losses(dict(a={2: 1e-4, 4: 4e-4, 8: 0.5, 16: 0.6}, b=grows(0.01, 2)))
    choose = MeasuredChoice(dict(a=100.0, b=100.0), losses)
    assert numbers(choose(dict(a=FOUR, b=FOUR), 75.0)) == dict(a=4, b=2)


def test_a_layer_that_loses_nothing_is_estimated_too():
    losses = Losses(dict(a={2: 0.0, 4: 0.0, 8: 0.0, 16: 0.0}, b=grows(0.01, 2)))
    choose = MeasuredChoice(dict(a=100.0, b=100.0), losses)
    assert numbers(choose(dict(a=FOUR, b=FOUR), 106.25)) == dict(a=16, b=1)


def test_layers_without_options_stay_dense():
    choose = MeasuredChoice(dict(a=100.0, b=100.0), Losses(dict(b=grows(0.01, 2))))
    assert numbers(choose(dict(a=[], b=FOUR), 150.0)) == dict(a=1, b=2)


def test_a_budget_that_can_not_be_met_is_refused_before_anything_is_measured():
    losses = Losses(dict(a=grows(0.01, 2)))
    with pytest.raises(ValueError, match='can not be met'):
        MeasuredChoice(dict(a=100.0), losses)(dict(a=FOUR), 6.0)
    assert not losses.asked
