"""tools/publish_backbone.py on a hand-made checkpoint."""

import re

import pytest
import torch
from mmengine.config import Config


@pytest.fixture(scope='module')
def main(tool):
    return tool('publish_backbone').main


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    state = {'backbone.conv1.weight': torch.ones(2, 3), 'fc.weight': torch.ones(2)}
    torch.save(dict(state_dict=state), path)
    return path


def test_prints_the_file_and_a_line_for_a_config(main, checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), str(tmp_path / 'dense-r18.pth')]) == 0
    first, second = capsys.readouterr().out.splitlines()
    (path,) = tmp_path.glob('dense-r18-*.pth')
    assert re.fullmatch(r'dense-r18-[0-9a-f]{8}\.pth', path.name)
    assert first == f'{path}: 1 tensors'
    init = Config.fromstring(second, '.py').backbone.init_cfg
    assert init == dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')


def test_errors_are_one_line_and_leave_nothing(main, checkpoint, tmp_path, capsys):
    headless = tmp_path / 'detached.pth'
    torch.save({'fc.weight': torch.ones(2)}, headless)
    out = tmp_path / 'new.pth'
    for source, target, complaint in (
        (tmp_path / 'no.pth', out, 'no.pth not found'),
        (headless, out, 'detached.pth has no keys that begin with'),
        (checkpoint, checkpoint, 'is the input itself, expected another file'),
        (checkpoint, tmp_path / 'no/new.pth', 'no not found'),
        (checkpoint, tmp_path, 'is a folder, expected a file'),
    ):
        with pytest.raises(SystemExit) as info:
            main([str(source), str(target)])
        assert info.value.code == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith('error: ')
        assert complaint in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ['detached.pth', 'epoch_1.pth']
