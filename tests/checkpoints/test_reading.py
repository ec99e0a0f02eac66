import os
import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmdet_groupconv.checkpoints import read_checkpoint, read_state_dict

STATE = {'conv.weight': torch.ones(2, 3)}


@pytest.mark.parametrize(
    'content',
    [
        STATE,
        dict(state_dict=STATE, epoch=3, best_prec1=70.1),
        dict(model=STATE),
        {f'module.{key}': value for key, value in STATE.items()},
    ],
    ids=['bare', 'state_dict', 'model', 'data-parallel'],
)
def test_usual_layouts_are_understood(tmp_path, content):
    torch.save(content, tmp_path / 'c.pth')
    state = read_state_dict(tmp_path / 'c.pth')
    assert state.keys() == STATE.keys()
    torch.testing.assert_close(state['conv.weight'], STATE['conv.weight'])


@pytest.mark.parametrize(
    ('beside', 'meta'),
    [
        (dict(meta=dict(iter=3), epoch=2), dict(iter=3)),
        (dict(epoch=2, best_prec1=70.5, optimizer={}), dict(epoch=2, best_prec1=70.5)),
        ({}, {}),
    ],
    ids=['mmengine', 'papers', 'neither'],
)
def test_what_is_told_beside_the_weights(tmp_path, beside, meta):
    torch.save(dict(state_dict=STATE, **beside), tmp_path / 'c.pth')
    assert read_checkpoint(tmp_path / 'c.pth')[1] == meta


@pytest.mark.parametrize('prefix', ['backbone', 'backbone.'])
def test_prefix_selects_and_strips(tmp_path, prefix):
    torch.save({'backbone.a': torch.ones(1), 'neck.a': torch.zeros(1)}, tmp_path / 'c.pth')
    assert read_state_dict(tmp_path / 'c.pth', prefix) == {'a': torch.ones(1)}


def test_prefix_without_keys_is_named(tmp_path):
    torch.save(STATE, tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=r"c\.pth has no keys that begin with 'backbone\.'"):
        read_state_dict(tmp_path / 'c.pth', 'backbone.')


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth not found'):
        read_state_dict(tmp_path / 'nowhere.pth')


class Touch:
    """Makes a file when it is unpickled, as an attacker's checkpoint would."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('save', [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, save):
    save(dict(state_dict=Touch(tmp_path / 'made')), tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=r'c\.pth'):
        read_state_dict(tmp_path / 'c.pth')
    assert not (tmp_path / 'made').exists()


def test_whole_model_is_refused_with_what_to_save_instead(tmp_path):
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=r'torch\.save\(model\.state_dict\(\)'):
        read_state_dict(tmp_path / 'c.pth')


@pytest.mark.parametrize('size', [0, 10, 400])
def test_truncated_file_is_named(tmp_path, size):
    torch.save(STATE, tmp_path / 'c.pth')
    os.truncate(tmp_path / 'c.pth', size)
    with pytest.raises(ValueError, match=r'c\.pth'):
        read_state_dict(tmp_path / 'c.pth')


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / 'c.pth')
    with pytest.raises(ValueError, match='holds list, expected a state dict'):
        read_state_dict(tmp_path / 'c.pth')


def test_logs_are_read_though_others_disallowed_them(tmp_path):
    path = tmp_path / 'run.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(1)), message_hub=HistoryBuffer([1.0], [1])), path)
    with torch.serialization.safe_globals([HistoryBuffer]):
        pass  # as OneDL's MMEngine: what was allowed in it isn't any more
    assert list(read_state_dict(path)) == ['a']
