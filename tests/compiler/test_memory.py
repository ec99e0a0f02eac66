"""Memory is used again, but never while somebody looks at it."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.compiler import memory as module
from mmdet_groupconv.compiler.maps import pixels
from mmdet_groupconv.compiler.memory import MapMemory

LIKE = torch.zeros(1)
SHAPE = (2, 3, 4, 5)


@pytest.fixture(autouse=True, scope='module')
def pooled():
    """Every float32 map comes from the memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, '_LARGE', 0)
        yield


KINDS = [  # of more than 64 bytes or not, in float32 or bfloat16 on a CPU or not
    (LIKE, (1, 1, 1, 17), True),
    (LIKE, (1, 1, 1, 16), False),
    (LIKE.double(), (1, 1, 1, 17), False),
    (LIKE.bfloat16(), (1, 1, 1, 33), True),
    (LIKE.bfloat16(), (1, 1, 1, 32), False),
    (LIKE.to('meta'), (1, 1, 1, 17), False),
]


def test_large_maps_on_cpus_are_kept(monkeypatch):
    monkeypatch.setattr(module, '_LARGE', 64)
    for like, shape, large in KINDS:
        memory = MapMemory()
        memory.empty(like, shape)
        assert len(memory._buffers) == large, (like, shape)


def test_huge_maps_on_cpus_are_worth_filling(monkeypatch):
    monkeypatch.setattr(module, '_HUGE', 64)
    for like, shape, large in KINDS:
        assert MapMemory().is_worth_filling(like, shape) is large, (like, shape)


@pytest.mark.parametrize('large', [0, 1 << 20])
def test_maps_of_any_kind_are_channels_last(large, monkeypatch):
    monkeypatch.setattr(module, '_LARGE', large)
    for like in (LIKE, LIKE.double(), LIKE.bfloat16(), LIKE.to('meta')):
        y = MapMemory().empty(like, SHAPE)
        assert (y.shape, y.dtype, y.device) == (SHAPE, like.dtype, like.device)
        assert y.is_contiguous(memory_format=torch.channels_last), like


def test_what_nobody_refers_to_is_used_again():
    memory = MapMemory()
    first = memory.empty(LIKE, SHAPE)
    place = first.data_ptr()
    del first
    assert memory.empty(LIKE, SHAPE).data_ptr() == place


def test_a_smaller_map_uses_a_larger_ones_memory():
    memory = MapMemory()
    place = memory.empty(LIKE, SHAPE).data_ptr()
    assert memory.empty(LIKE, (1, 3, 4, 5)).data_ptr() == place


def test_a_map_uses_the_least_memory_that_it_fits_in():
    for sizes in ((70, 20, 50), (20, 50, 70), (50, 70, 20)):
        memory = MapMemory()
        maps = {size: memory.empty(LIKE, (1, 1, 1, size)) for size in sizes}
        places = {size: y.data_ptr() for size, y in maps.items()}
        maps.clear()
        assert memory.empty(LIKE, (1, 1, 1, 30)).data_ptr() == places[50], sizes


@pytest.mark.parametrize('sizes', [(30, 60), (60, 30)])
def test_a_larger_map_takes_the_turn_of_the_largest_that_is_unused(sizes):
    memory = MapMemory()
    maps = [memory.empty(LIKE, (1, 1, 1, size)) for size in sizes]
    del maps
    assert memory.empty(LIKE, SHAPE).numel() == 120
    assert sorted(len(buffer) for buffer in memory._buffers) == [4 * 30, 4 * 120]


@pytest.mark.parametrize(
    'view',
    [
        lambda x: x[:, 1:2],
        lambda x: x.permute(0, 2, 3, 1),
        pixels,
        lambda x: x.detach(),
        lambda x: x.numpy(),
        lambda x: x.untyped_storage(),
    ],
)
def test_a_view_keeps_memory_in_use(view):
    memory = MapMemory()
    y = memory.empty(LIKE, SHAPE).fill_(1)
    place, kept = y.data_ptr(), view(y)
    del y
    assert memory.empty(LIKE, SHAPE).data_ptr() != place
    del kept
    assert memory.empty(LIKE, SHAPE).data_ptr() == place


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.tuples(st.sampled_from(['new', 'free', 'view']), st.integers(0, 30))),
)
def test_maps_that_are_alive_never_share_memory(steps):
    memory, alive = MapMemory(), []
    for number, (step, choice) in enumerate(steps):
        if step == 'new':
            y = memory.empty(LIKE, (1, 1 + choice, 2, 2)).fill_(number)
            alive.append((number, y))
            del y
        elif alive and step == 'free':
            del alive[choice % len(alive)]
        elif alive:
            known, y = alive[choice % len(alive)]
            alive[choice % len(alive)] = known, y[:, :1]
            del y
        assert all(torch.all(y == known) for known, y in alive)
        assert len(memory._buffers) <= module._MOST


def test_the_number_of_buffers_is_that_of_maps_alive_at_one_time():
    memory = MapMemory()
    for _ in range(20):
        first, second = memory.empty(LIKE, SHAPE), memory.empty(LIKE, SHAPE)
        del first, second
    assert len(memory._buffers) == 2


def test_beyond_the_limit_maps_have_memory_of_their_own():
    memory = MapMemory()
    maps = [memory.empty(LIKE, SHAPE) for _ in range(2 * module._MOST)]
    assert len({y.data_ptr() for y in maps}) == 2 * module._MOST
    assert len(memory._buffers) == module._MOST


def test_threads_get_maps_of_their_own():
    memory = MapMemory()
    with ThreadPoolExecutor(4) as threads:
        maps = list(threads.map(lambda _: memory.empty(LIKE, SHAPE), range(module._MOST)))
    assert len({y.data_ptr() for y in maps}) == module._MOST


def test_copies_have_memory_of_their_own():
    memory = MapMemory()
    place = memory.empty(LIKE, SHAPE).data_ptr()
    for other in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert other.empty(LIKE, SHAPE).data_ptr() != place
