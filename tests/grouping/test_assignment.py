"""Groups with shared orders."""

import numpy as np
import pytest

from mmdet_groupconv.grouping import Ends, Orders, Spaces, free_spaces

CHAIN = Spaces({'a': Ends(0, 1), 'b': Ends(1, 2)}, {0: 8, 1: 16, 2: 8}, set())


def hidden_blocks(rng, spaces, groups):
    """Importances whose connections lie within hidden groups, the same for all layers."""
    member = {s: rng.permutation(np.arange(n) * groups // n) for s, n in spaces.sizes.items()}
    return {
        name: rng.uniform(0.5, 1, (spaces.sizes[ends.writes], spaces.sizes[ends.reads]))
        * (member[ends.writes][:, None] == member[ends.reads])
        for name, ends in spaces.layers.items()
    }


@pytest.mark.parametrize('groups', [2, 4])
def test_finds_groups_that_lose_nothing(groups):
    importance = hidden_blocks(np.random.default_rng(0), CHAIN, groups)
    orders = Orders(importance, CHAIN, dict.fromkeys(CHAIN.sizes, groups))
    orders.improve(dict.fromkeys(importance, groups))
    for name, weights in importance.items():
        assert orders.kept(name, groups) == pytest.approx(weights.sum())


def test_groups_are_equal_and_those_of_two_are_halves_of_the_order():
    rng = np.random.default_rng(1)
    importance = {'a': rng.random((16, 8)), 'b': rng.random((8, 16))}
    orders = Orders(importance, CHAIN, dict.fromkeys(CHAIN.sizes, 4))
    orders.improve(dict(a=2, b=4))
    channels, filters = orders.groups('a', 2)
    assert np.bincount(channels).tolist() == [4, 4]
    assert np.bincount(filters).tolist() == [8, 8]
    finer, _ = orders.groups('b', 4)
    assert np.bincount(finer).tolist() == [4, 4, 4, 4]
    assert (finer // 2 == filters).all()  # one order of what a writes and b reads


def test_a_shuffled_space_is_read_in_an_order_of_its_own():
    rng = np.random.default_rng(2)
    importance = {'a': rng.random((16, 8)) ** 4, 'b': rng.random((8, 16)) ** 4}
    shared = Orders(importance, CHAIN, dict.fromkeys(CHAIN.sizes, 4))
    shuffled = Orders(importance, CHAIN, dict.fromkeys(CHAIN.sizes, 4), shuffled=[1])
    numbers = dict(a=4, b=4)
    assert shuffled.improve(numbers) > shared.improve(numbers)
    assert not np.array_equal(shuffled.groups('a', 4)[1], shuffled.groups('b', 4)[0])


def test_no_step_keeps_less():
    rng = np.random.default_rng(3)
    importance = {'a': rng.random((16, 8)), 'b': rng.random((8, 16))}
    orders = Orders(importance, CHAIN, dict.fromkeys(CHAIN.sizes, 4))
    numbers = dict(a=4, b=2)
    first = orders.total(numbers)
    second = orders.improve(numbers)
    assert first <= second <= orders.improve(numbers)


def test_keeps_more_than_random_groups_and_free_orders_keep_most():
    rng = np.random.default_rng(4)
    importance = {'a': rng.random((16, 8)) ** 4, 'b': rng.random((8, 16)) ** 4}
    numbers = dict(a=2, b=2)
    total = sum(w.sum() for w in importance.values())
    shared = Orders(importance, CHAIN, dict.fromkeys(CHAIN.sizes, 2)).improve(numbers)
    alone = free_spaces(CHAIN)
    free = Orders(importance, alone, dict.fromkeys(alone.sizes, 2)).improve(numbers)
    assert 0.5 * total < shared <= free * (1 + 1e-9)


def test_the_same_seed_gives_the_same_groups():
    rng = np.random.default_rng(5)
    importance = {'a': rng.random((16, 8)), 'b': rng.random((8, 16))}
    one, other = (
        Orders(importance, CHAIN, dict.fromkeys(CHAIN.sizes, 4), seed=3).groups('a', 4)
        for _ in range(2)
    )
    assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))
