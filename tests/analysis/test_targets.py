from mmengine.config import Config

from mmdet_groupconv.analysis.targets import targets_of


def test_each_budget_is_a_target_whatever_its_priority():
    backbone = dict(type='MACBudgetHook', target=0.4, priority='LOW')
    detector = dict(type='MACBudgetHook', target=0.6, scope='detector')
    other = dict(type='NumClassCheckHook')
    cfg = Config(dict(custom_hooks=[backbone, other, detector]))
    assert targets_of(cfg) == {'backbone': 0.4, 'detector': 0.6}


def test_without_a_budget_there_is_none():
    assert targets_of(Config(dict(lr=0.1))) == {}
