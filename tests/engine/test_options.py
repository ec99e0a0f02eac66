"""The command line's options."""

import argparse

import pytest

from mmdet_groupconv.engine.options import add_config_options


@pytest.fixture
def parse():
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return lambda *words: parser.parse_args(['config.py', '--cfg-options', *words]).cfg_options


def test_settings_are_mmengines(parse):
    assert parse('a.b=1', 'c=[x,2]', 'd=') == {'a.b': 1, 'c': ['x', 2], 'd': ''}


def test_a_word_without_an_equals_sign_is_named(parse, capsys):
    with pytest.raises(SystemExit, match='2'):
        parse('a=1', 'heads')
    assert "--cfg-options: found 'heads', expected KEY=VALUE" in capsys.readouterr().err
