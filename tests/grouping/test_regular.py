"""Regular groups: how many, and where orders change."""

import pytest

from mmdet_groupconv.grouping import Ends, Spaces, shuffled_spaces, why_dense
from mmdet_groupconv.grouping.regular import most_groups

# Two residual blocks: a stream (0), each with a space of its own between two layers.
BLOCKS = Spaces(
    {
        'stem': Ends(None, 0),
        'a.conv1': Ends(0, 1),
        'a.conv2': Ends(1, 0),
        'b.conv1': Ends(0, 2),
        'b.conv2': Ends(2, 0),
    },
    {0: 32, 1: 32, 2: 32},
    {0},
)
TOWER = Spaces({str(n): Ends(n, n + 1) for n in range(4)}, dict.fromkeys(range(5), 32), set())


def test_a_block_shuffles_once_and_a_stream_never():
    assert shuffled_spaces(BLOCKS) == {1, 2}


def test_a_tower_shuffles_before_every_other_layer():
    assert shuffled_spaces(TOWER) == {1, 3}


@pytest.mark.parametrize(
    ('channels', 'align', 'expected'), [(64, 16, 4), (256, 16, 16), (512, 16, 16), (24, 16, 1)]
)
def test_groups_are_multiples_of_align(channels, align, expected):
    assert most_groups(channels, align, 16) == expected


def test_says_why_a_layer_stays_dense():
    spaces = Spaces({}, {0: 32, 1: 27}, set())
    assert why_dense(Ends(0, 0), spaces, 16) == 'it reads and writes the same channels'
    complaint = '27 filters are no two groups of a multiple of 16'
    assert why_dense(Ends(0, 1), spaces, 16) == complaint
    assert why_dense(Ends(0, 0)._replace(writes=2), Spaces({}, {0: 32, 2: 32}, set()), 16) is None
