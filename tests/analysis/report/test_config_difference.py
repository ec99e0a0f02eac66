from mmengine.config import Config

from mmdet_groupconv.analysis.report.config_difference import config_difference


def difference(*settings):
    return config_difference([Config(one) for one in settings])


def test_only_what_differs_is_listed_by_its_dotted_key():
    one = dict(model=dict(depth=18, heads=4), lr=0.1)
    assert difference(one, dict(model=dict(depth=50, heads=4), lr=0.1)) == {
        'model.depth': ['18', '50']
    }


def test_what_one_run_lacks_is_none():
    assert difference(dict(a=1), dict(a=1, b=dict(c='x'))) == {'b.c': [None, "'x'"]}


def test_lists_of_settings_are_compared_item_by_item_others_whole():
    one = dict(hooks=[dict(type='A', n=1)], scale=[1, 2])
    other = dict(hooks=[dict(type='A', n=2)], scale=[1, 3])
    assert difference(one, other) == {'hooks.0.n': ['1', '2'], 'scale': ['[1, 2]', '[1, 3]']}


def test_where_a_run_was_written_is_no_difference():
    assert difference(dict(work_dir='a', load_from='x'), dict(work_dir='b', load_from='y')) == {}
