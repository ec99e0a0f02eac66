"""Schedules of other lengths."""

import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_groupconv.engine.epochs import train_for

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def one_x():
    """MMDetection's: a warm-up by iteration, two steps by epoch."""
    return Config(
        dict(
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=3),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
                dict(type='MultiStepLR', begin=0, end=12, milestones=[8, 11], gamma=0.1),
            ],
        )
    )


@pytest.mark.parametrize(
    ('epochs', 'steps', 'interval'),
    [(24, [16, 22], 3), (12, [8, 11], 3), (6, [4, 5], 3), (3, [2, 2], 3), (2, [1, 1], 2)],
)
def test_steps_by_epoch_move_and_a_warm_up_stays(epochs, steps, interval):
    cfg = one_x()
    train_for(cfg, epochs)
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.train_cfg.val_interval == interval
    warm_up, main = cfg.param_scheduler
    assert warm_up == one_x().param_scheduler[0]
    assert main == dict(one_x().param_scheduler[1], end=epochs, milestones=steps)


def test_a_cosine_ends_with_the_run():
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_r18_fpn_12e_bccd.py')
    train_for(cfg, 3)
    assert cfg.param_scheduler[1].T_max == 3


def test_restarts_come_as_much_sooner():
    cfg = one_x()
    cfg.param_scheduler = [dict(type='CosineRestartLR', periods=[4, 8], begin=0)]
    train_for(cfg, 6)
    assert cfg.param_scheduler[0] == dict(type='CosineRestartLR', periods=[2, 4], begin=0)


def test_schedulers_of_several_optimizers_are_found():
    cfg = one_x()
    several = dict(one=copy.deepcopy(cfg.param_scheduler), other=cfg.param_scheduler[1])
    cfg.param_scheduler = several
    train_for(cfg, 6)
    assert cfg.param_scheduler.one[1].milestones == [4, 5]
    assert cfg.param_scheduler.other.milestones == [4, 5]


def test_a_run_without_schedulers_is_as_long_as_asked():
    cfg = one_x()
    cfg.param_scheduler = None
    train_for(cfg, 5)
    assert cfg.train_cfg.max_epochs == 5


def test_a_loop_by_iteration_is_refused():
    cfg = Config(dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=100)))
    with pytest.raises(ValueError, match='expected a loop with max_epochs'):
        train_for(cfg, 3)


def test_less_than_an_epoch_is_refused():
    with pytest.raises(ValueError, match='epochs=0, expected 1 or more'):
        train_for(one_x(), 0)
