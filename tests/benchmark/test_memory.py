import pytest
import torch

from mmdet_groupconv.benchmark import memory, peak_memory

CPU = torch.device('cpu')
MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def _measurable():
    if not memory._can_measure():
        pytest.skip('this system does not record peaks of the resident set')


def using(megabytes, chunk):
    """Allocates so much in pieces; small ones come from memory that C libraries keep."""

    def run():
        return [torch.ones(chunk << 18) for _ in range(megabytes // chunk)]

    return run


@pytest.mark.parametrize('chunk', [1, 8, 64])
@pytest.mark.parametrize('order', [(64, 192), (192, 64)])
def test_peaks_do_not_depend_on_what_ran_before(chunk, order):
    for megabytes in order:
        found = peak_memory(using(megabytes, chunk), CPU) / MEGABYTE
        assert found == pytest.approx(megabytes, abs=16)


def test_memory_that_was_freed_before_is_not_for_free():
    def run():
        return [torch.ones(1 << 14) for _ in range(1024)]  # 64 kB each, from the heap

    last = run()[-1]  # keeps the heap from shrinking
    assert peak_memory(run, CPU) / MEGABYTE == pytest.approx(64, abs=16)
    assert last[0] == 1


def test_what_is_kept_between_calls_counts():
    kept = []

    def run():
        if not kept:
            kept.append(torch.ones(100 << 18))
        kept[0].add_(1)

    assert peak_memory(run, CPU) / MEGABYTE == pytest.approx(100, abs=16)


def test_what_only_the_first_call_needs_does_not():
    calls = []

    def run():
        calls.append(torch.ones(100 << 18).sum() if not calls else None)

    assert peak_memory(run, CPU) / MEGABYTE < 16


def test_unknown_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(memory, '_can_measure', lambda: False)
    calls = []
    assert peak_memory(lambda: calls.append(1), CPU) is None
    assert len(calls) == 2
