import torch

from mmdet_groupconv.benchmark import Timing, interleaved, timing

CPU = torch.device('cpu')


def test_cases_take_turns(monkeypatch):
    called = []
    now = [0]
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: now[0])

    def case(name, seconds):
        def run():
            called.append(name)
            now[0] += seconds

        return run

    cases = dict(a=case('a', 1), b=case('b', 5), c=case('c', 2))
    found = interleaved(cases, 4, CPU)
    assert ''.join(called) == 'aabbcc' + 'abc' + 'bca' + 'cab' + 'abc'
    assert {name: of.median for name, of in found.items()} == dict(a=1, b=5, c=2)
    assert found['b'].seconds == [5] * 4


def test_the_median_and_the_spread():
    found = Timing([4.0, 1.0, 2.0, 3.0, 100.0], None)
    assert found.median == 3
    assert found.quartiles == (2, 4)
    assert Timing([2.0], None).quartiles == (2, 2)
