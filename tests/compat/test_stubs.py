"""Placeholders are found and replaced, in modules made up here."""

import sys
from types import ModuleType

import pytest

from mmdet_groupconv.compat import ensure_mmcv_ops
from mmdet_groupconv.compat.stubs import reimport_broken_packages, replace_stubs

ensure_mmcv_ops()

FUNCTION = """
def {name}(*args, **kwargs):
    raise RuntimeError('{op} requires mmcv to be compiled with ops. Please reinstall')
"""
CLASS = """
class {name}:
    def __init__(self, *args, **kwargs):
        raise RuntimeError('{op} requires mmcv to be compiled with ops. Please reinstall')
"""


@pytest.fixture
def module(monkeypatch):
    """Puts modules with the given source or contents into ``sys.modules``."""

    def make(name, source='', **contents):
        made = ModuleType(name)
        exec(source, made.__dict__)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return make


@pytest.mark.parametrize(
    ('source', 'name', 'op'),
    [
        (FUNCTION, 'batched_nms', 'batched_nms'),
        (FUNCTION, '_sigmoid_focal_loss', 'sigmoid_focal_loss'),
        (CLASS, 'RoIPool', 'RoIPool'),
    ],
)
def test_a_placeholder_becomes_the_operator_its_message_names(module, source, name, op):
    import mmcv.ops

    made = module('mmdet.made_up', source.format(name=name, op=op))

    replace_stubs()

    assert getattr(made, name) is getattr(mmcv.ops, op)


def test_an_operator_that_mmcv_ops_does_not_export_is_found_in_its_submodule(module):
    made = module('mmdet.made_up', CLASS.format(name='SumCell', op='SumCell'))

    replace_stubs()

    assert made.SumCell.__module__ == 'mmcv.ops.merge_cells'


def test_a_copy_under_another_name_in_a_module_of_the_user_is_replaced(module):
    import mmcv.ops

    made = module('mmdet.made_up', FUNCTION.format(name='nms', op='nms'))
    users = module('made_up_users', suppress=made.nms)

    replace_stubs()

    assert users.suppress is mmcv.ops.nms


def test_a_function_that_does_more_than_raise_is_left_alone(module):
    source = """
def nms(boxes):
    if len(boxes):
        raise RuntimeError('nms requires mmcv to be compiled with ops.')
    return boxes
"""
    made = module('mmdet.made_up', source)
    before = made.nms

    replace_stubs()

    assert made.nms is before


def test_a_placeholder_made_outside_mmdet_and_mmcv_is_left_alone(module):
    made = module('made_up_users', FUNCTION.format(name='nms', op='nms'))
    before = made.nms

    replace_stubs()

    assert made.nms is before


def test_names_that_were_set_to_none_or_left_out_are_bound(module):
    import mmcv.ops

    transformer = module('mmcv.cnn.bricks.transformer')
    if hasattr(mmcv.ops, 'line_nms'):  # OneDL's
        head = module('mmdet.models.dense_heads.clr_head.clr_head', nms=None)

    replace_stubs()

    if hasattr(mmcv.ops, 'line_nms'):
        assert head.nms is mmcv.ops.line_nms
    assert transformer.MultiScaleDeformableAttention is mmcv.ops.MultiScaleDeformableAttention


def test_a_class_derived_from_a_placeholder_is_an_error_that_names_its_module(module):
    made = module('mmdet.made_up', CLASS.format(name='RoIPool', op='RoIPool'))
    heir = type('Heir', (made.RoIPool,), {'__module__': 'made_up_users'})

    with pytest.raises(ImportError, match='import mmdet_groupconv before made_up_users'):
        replace_stubs()

    assert heir.__mro__[1] is made.RoIPool


def test_a_placeholder_for_an_unknown_operator_is_an_error_that_names_the_module(module):
    module('mmdet.made_up', FUNCTION.format(name='warp_drive', op='warp_drive'))

    with pytest.raises(ImportError, match=r'warp_drive.* before mmdet\.made_up'):
        replace_stubs()


def test_a_lazy_module_is_not_loaded_by_the_search(monkeypatch):
    class Lazy(ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(f'asked for {name}')

    monkeypatch.setitem(sys.modules, 'made_up_lazy', Lazy('made_up_lazy'))

    replace_stubs()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes the package mmdet.made_up, whose import runs ``source``, with a submodule left over."""
    import mmdet

    def make(source):
        (tmp_path / 'made_up').mkdir()
        (tmp_path / 'made_up' / '__init__.py').write_text(source)
        monkeypatch.setattr(mmdet, '__path__', [*mmdet.__path__, str(tmp_path)])
        left = ModuleType('mmdet.made_up.left')
        monkeypatch.setitem(sys.modules, left.__name__, left)
        return left

    yield make
    sys.modules.pop('mmdet.made_up', None)
    vars(mmdet).pop('made_up', None)


def test_a_package_that_failed_is_imported_again_with_its_submodules(package):
    import mmdet

    left = package('')

    reimport_broken_packages()

    assert mmdet.made_up.left is left


def test_a_name_that_the_package_defines_is_not_covered_by_its_submodule(package):
    import mmdet

    package('left = "a function"')

    reimport_broken_packages()

    assert mmdet.made_up.left == 'a function'


def test_a_package_that_fails_again_is_an_error_that_names_it(package):
    package('import made_up_that_is_not_there')

    with pytest.raises(ImportError, match=r'Import mmdet_groupconv before mmdet\.made_up'):
        reimport_broken_packages()
