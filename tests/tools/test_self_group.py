"""tools/self_group.py on a small detector."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet_groupconv.checkpoints import read_checkpoint
from mmdet_groupconv.engine.launch import build_model

PROJECT = Path(__file__).resolve().parents[2]
CONFIG = PROJECT / 'configs/retinanet/retinanet_sgc-r18_fpn_12e_bccd.py'
SMALL = ['model.backbone.base_channels=8', 'model.neck.in_channels=[8,16,32,64]']


@pytest.fixture(scope='module')
def main(tool):
    return tool('self_group').main


@pytest.fixture(scope='module')
def dense(tmp_path_factory):
    """A checkpoint without masks, as of the dense detector."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    torch.manual_seed(0)
    state = {k: v for k, v in build_model(cfg).state_dict().items() if not k.endswith('mask')}
    path = tmp_path_factory.mktemp('dense') / 'dense.pth'
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=['a']), epoch=3)), path)
    return path


def run(main, dense, out, *options):
    arguments = [str(CONFIG), str(dense), '--shape', '64', '64', '--out', str(out), *options]
    return main([*arguments, '--cfg-options', *SMALL])


def test_prunes_a_dense_checkpoint(main, dense, tmp_path, capsys):
    out = tmp_path / 'new.pth'
    assert run(main, dense, out, '--percentage', '60', '--groups', '4') == 0
    state, meta = read_checkpoint(out)
    masks = [value for key, value in state.items() if key.endswith('.mask')]
    assert len(masks) == 16
    for mask in masks:
        assert len(mask.unique(dim=0)) <= 4**6  # each of six steps tells apart four clusters
        assert float(mask.mean()) == pytest.approx(0.4, abs=0.1)
    assert meta['dataset_meta'] == dict(classes=['a'])
    assert meta['self_grouping'] == dict(percentage=60.0, step=10.0, groups=4, seed=0)
    assert 'epoch' not in meta
    printed = capsys.readouterr().out
    assert 'ratio reached, detector' in printed
    before, _ = read_checkpoint(dense)
    assert all(torch.equal(state[key], value) for key, value in before.items())


def test_goes_on_from_its_own_output(main, dense, tmp_path):
    first, second = tmp_path / 'a.pth', tmp_path / 'b.pth'
    run(main, dense, first, '--percentage', '20')
    run(main, first, second, '--percentage', '50')
    key = 'backbone.layer1.0.conv1.mask'
    earlier, later = (read_checkpoint(path)[0][key] for path in (first, second))
    assert (later <= earlier).all()
    assert later.sum() < earlier.sum()


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        (['--percentage', '100'], 'percentage=100.0, step=10, expected numbers between 0 and 100'),
        (['--percentage', '50', '--groups', '0'], '--groups 0, expected 1 or more'),
    ],
)
def test_bad_numbers_are_refused(main, dense, tmp_path, capsys, options, complaint):
    with pytest.raises(SystemExit) as info:
        run(main, dense, tmp_path / 'new.pth', *options)
    assert info.value.code == 1
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_wrong_files_are_refused_before_any_work(main, dense, tmp_path, capsys):
    for checkpoint, out, complaint in (
        (tmp_path / 'no.pth', tmp_path / 'new.pth', 'no.pth not found'),
        (dense, dense, 'is the input itself, expected another file'),
        (dense, tmp_path / 'no/new.pth', 'no not found'),
        (dense, tmp_path, 'is a folder, expected a file'),
    ):
        with pytest.raises(SystemExit) as info:
            run(main, checkpoint, out, '--percentage', '50')
        assert info.value.code == 1
        assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_detector_without_self_grouping_layers_is_refused(main, dense, tmp_path, capsys):
    config = CONFIG.with_name('retinanet_r18_fpn_12e_bccd.py')
    arguments = [str(config), str(dense), '--percentage', '60', '--out', str(tmp_path / 'new.pth')]
    with pytest.raises(SystemExit):
        main([*arguments, '--cfg-options', *SMALL])
    assert 'has no SGC layers' in capsys.readouterr().err
