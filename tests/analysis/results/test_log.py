"""A run's log, a line an epoch."""

import pytest

from mmdet_groupconv.analysis.pictures import Run
from mmdet_groupconv.analysis.results import epochs_of

TRAIN = dict(
    epoch=([1, 2, 3, 4], [1, 1, 2, 2]),
    loss=([1, 2, 3, 4], [4.0, 2.0, 1.0, 0.5]),
    lr=([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]),
    mac_ratio=([1, 2, 3, 4], [1.0, 0.9, 0.8, 0.7]),
    memory=([1, 2, 3, 4], [1, 1, 1, 1]),
)
VAL = {
    'coco/bbox_mAP': ([2], [0.123456789]),
    'mac_ratio': ([2], [0.5]),
    'gates/layer/0': ([2], [0.4]),
}


def test_losses_are_means_and_the_rest_is_the_last_of_an_epoch():
    first, second = epochs_of(Run('run', TRAIN, VAL))
    assert first == dict(epoch=1, loss=3.0, lr=0.2, mac_ratio=0.9)
    assert (second['loss'], second['lr']) == (0.75, 0.4)


def test_what_validation_found_stands_with_its_epoch():
    _, second = epochs_of(Run('run', TRAIN, VAL))
    assert second['coco/bbox_mAP'] == 0.12346
    assert (second['mac_ratio'], second['val mac_ratio']) == (0.7, 0.5)
    assert not any(name.startswith('gates/') for name in second)


def test_a_run_that_counts_iterations_has_no_epochs():
    with pytest.raises(ValueError, match='run counts iterations, expected a run of epochs'):
        epochs_of(Run('run', TRAIN, VAL, by_epoch=False))
