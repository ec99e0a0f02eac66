import pytest
import torch

from mmdet_groupconv.benchmark import Timing, interleaved, timing

CPU = torch.device('cpu')


def test_cases_take_turns(monkeypatch):
    called = []
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: next(clock))
    cases = {name: lambda name=name: called.append(name) for name in 'ab'}
    found = interleaved(cases, 3, CPU)
    assert called == ['a', 'a', 'b', 'b'] + ['a', 'b'] * 3
    assert [found[name].seconds for name in 'ab'] == [[1, 1, 1]] * 2


def test_the_median_and_the_spread():
    found = Timing([4.0, 1.0, 2.0, 3.0, 100.0], None)
    assert found.median == 3
    assert found.quartiles == (2, 4)
    assert Timing([2.0], None).quartiles == (2, 2)


def test_a_case_that_takes_more_memory_has_a_higher_peak():
    if not timing._STATM.is_file():
        pytest.skip('no resident pages to read on this system')
    kept = interleaved({'one': lambda: torch.zeros(64 << 20).sum(), 'none': int}, 1, CPU)
    assert kept['one'].peak > 200 << 20
    assert kept['none'].peak < 50 << 20
