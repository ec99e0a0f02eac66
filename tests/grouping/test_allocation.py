"""The share of each layer, against trying everything."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.grouping import Choice, allocate

CHOICES = st.lists(
    st.builds(Choice, st.integers(1, 40).map(float), st.integers(0, 50).map(float)),
    min_size=1,
    max_size=3,
)


def test_spends_macs_where_they_save_most():
    options = dict(
        dear=[Choice(10, 0), Choice(5, 100)], cheap=[Choice(10, 0), Choice(5, 1), Choice(2, 3)]
    )
    assert allocate(options, 15) == dict(dear=0, cheap=1)
    assert allocate(options, 12) == dict(dear=0, cheap=2)
    assert allocate(options, 7) == dict(dear=1, cheap=2)


def test_a_budget_may_be_spent_to_the_last():
    options = dict(a=[Choice(10, 0), Choice(3, 1)])
    assert allocate(options, 10) == dict(a=0)
    assert allocate(options, 9.9) == dict(a=1)


def test_of_equal_losses_the_one_that_does_more_is_taken():
    options = dict(a=[Choice(10, 0), Choice(2, 0), Choice(4, 0), Choice(6, 0)])
    assert allocate(options, 5) == dict(a=2)
    assert allocate(options, 20) == dict(a=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(CHOICES, min_size=1, max_size=4), st.floats(1, 100))
def test_equals_the_best_of_all_combinations(layers, macs):
    options = {str(number): layer for number, layer in enumerate(layers)}
    fits = [c for c in itertools.product(*layers) if sum(o.macs for o in c) <= macs]
    if not fits:
        return
    chosen = [options[name][index] for name, index in allocate(options, macs).items()]
    least = min(sum(o.loss for o in c) for c in fits)
    slack = macs * len(layers) / 8000  # of rounding to a 4000th of the budget
    assert sum(o.macs for o in chosen) <= macs + slack
    tight = [c for c in itertools.product(*layers) if sum(o.macs for o in c) <= macs - slack]
    allowed = min((sum(o.loss for o in c) for c in tight), default=sum(o.loss for o in chosen))
    assert sum(o.loss for o in chosen) <= max(allowed, least)


def test_a_budget_that_can_not_be_met_names_the_least():
    with pytest.raises(ValueError, match='6 MACs can not be met: the least is 7'):
        allocate(dict(a=[Choice(10, 0), Choice(3, 1)], b=[Choice(4, 0)]), 6)
