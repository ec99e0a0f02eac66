"""The fastest form is found once for a size of map."""

from types import SimpleNamespace

import pytest
import torch

from mmdet_groupconv.compiler import fastest
from mmdet_groupconv.compiler.fastest import Fastest


class Forms:
    """Forms that take as many seconds as they are said to, by a clock that only they move."""

    def __init__(self, **seconds):
        self.seconds = {name: iter(all_of) for name, all_of in seconds.items()}
        self.now, self.ran, self.outs = 0.0, [], []

    def perf_counter(self):
        return self.now

    def __call__(self, name, out):
        self.now += next(self.seconds[name])
        self.ran.append(name)
        self.outs.append(out)
        if out is not None:
            out.add_(1)


@pytest.fixture
def forms(monkeypatch):
    def make(**seconds):
        made = Forms(**seconds)
        monkeypatch.setattr(fastest, 'time', SimpleNamespace(perf_counter=made.perf_counter))
        return made

    return make


def always(seconds):
    return [seconds] * 1000


def a_map(*shape):
    return torch.zeros(shape)


def test_takes_the_one_that_needs_least_time(forms):
    run = forms(a=always(3), b=always(1), c=always(2))
    assert Fastest().choose(a_map(1, 2, 4, 4), 'abc', run, None) == 'b'


@pytest.mark.parametrize('seconds', [[8, 1, 50], [8, 50, 1], [1, 50, 50]])
def test_slow_rounds_do_not_matter(seconds, forms):
    run = forms(a=always(2), b=seconds)
    assert Fastest().choose(a_map(1, 2, 4, 4), 'ab', run, None) == 'b'


@pytest.mark.parametrize(
    ('seconds', 'ran'), [(4.01, 'abaa'), (3.99, 'ababab'), (0.26, 'ababab'), (0.24, 'abbb')]
)
def test_a_form_that_is_four_times_slower_is_not_tried_again(seconds, ran, forms):
    run = forms(a=always(1), b=always(seconds))
    Fastest().choose(a_map(1, 2, 4, 4), 'ab', run, None)
    assert ''.join(run.ran) == ran


def test_is_timed_once(forms):
    run, found = forms(a=always(1), b=always(2)), Fastest()
    found.choose(a_map(1, 2, 4, 4), 'ab', run, None)
    ran = list(run.ran)
    assert found.choose(a_map(1, 2, 4, 4), 'ab', run, None) == 'a'
    assert run.ran == ran


def test_remembers_what_was_the_fastest_then(forms):
    run, found = forms(a=[1, 1, 1, *always(9)], b=always(2)), Fastest()
    choices = [found.choose(a_map(1, 2, 4, 4), 'ab', run, None) for _ in range(3)]
    assert choices == ['a', 'a', 'a']


def test_the_number_of_channels_that_are_there_does_not_matter(forms):
    run, found = forms(a=always(1), b=always(2)), Fastest()
    for channels in range(1, 20):
        found.choose(a_map(1, channels, 4, 4), 'ab', run, None)
    assert len(found.chosen) == 1


@pytest.mark.parametrize(
    'other', [a_map(1, 2, 8, 8), a_map(4, 2, 4, 4), a_map(1, 2, 4, 4).double()]
)
def test_other_maps_are_timed_for_themselves(other, forms):
    run, found = forms(a=[1] * 3 + [9] * 3, b=always(2)), Fastest()
    assert found.choose(a_map(1, 2, 4, 4), 'ab', run, None) == 'a'
    assert found.choose(other, 'ab', run, None) == 'b'


@pytest.mark.parametrize(('load', 'again'), [(0.01, True), (0.5, True), (0.76, False)])
def test_images_with_other_shares_of_open_gates_are_timed_for_themselves(load, again, forms):
    run, found, x = forms(a=[1] * 3 + [9] * 3, b=always(2)), Fastest(), a_map(1, 2, 4, 4)
    assert found.choose(x, 'ab', run, None) == 'a'
    assert found.choose(x, 'ab', run, None, lambda: load) == ('b' if again else 'a')


def test_keeps_the_seconds_of_each_form(forms):
    found = Fastest()
    found.choose(a_map(1, 2, 4, 4), 'ab', forms(a=always(2), b=always(1)), None)
    assert list(found.seconds.values()) == [dict(a=2, b=1)]


def test_a_form_without_alternative_is_not_tried(forms):
    run = forms(a=always(1))
    assert Fastest().choose(a_map(1, 2, 4, 4), iter('a'), run, None) == 'a'
    assert run.ran == []


def test_what_is_added_onto_is_left_as_it_was(forms):
    run, out = forms(a=always(1), b=always(2)), torch.zeros(1, 2, 3, 3)
    Fastest().choose(a_map(1, 2, 3, 3), 'ab', run, out)
    assert not out.any()
    assert all(scratch.shape == out.shape and scratch is not out for scratch in run.outs)


def test_what_is_remembered_is_a_power_of_two_of_sizes(forms):
    run, found = forms(a=always(1), b=always(2)), Fastest()
    for size in range(1, 200):
        found.choose(a_map(1, 1, size, size), 'ab', run, None)
    assert len(found.chosen) <= 16  # 199 * 199 < 2 ** 16
