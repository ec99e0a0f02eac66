import pytest

from mmdet_groupconv.engine.span import Span


@pytest.mark.parametrize(
    ('start', 'stop', 'expected'),
    [
        (0.25, 0.75, [0, 0, 0.5, 1, 1]),
        (0.0, 0.5, [0, 0.5, 1, 1, 1]),
        (1.0, 1.0, [0, 0, 0, 0, 1]),
        (0.0, 0.0, [1, 1, 1, 1, 1]),
    ],
)
def test_passes_linearly_from_start_to_stop(start, stop, expected):
    span = Span(start, stop, 'a hook')
    assert [span.passed(n / 4) for n in range(5)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ('start', 'stop', 'named'), [(-0.1, 1, 'start=-0.1'), (0.5, 0.4, 'stop=0.4')]
)
def test_numbers_out_of_range_are_named(start, stop, named):
    with pytest.raises(ValueError, match=f'{named} of a hook, expected a share of the run'):
        Span(start, stop, 'a hook')
