"""What is settled before a run is resumed; resumed runs themselves are in ../reliability."""

import pytest
import torch
from mmengine.config import Config

from mmdet_groupconv.checkpoints import write_checkpoint
from mmdet_groupconv.engine.resuming import prepare_resume, settle_resume

META = dict(epoch=1, iter=4, seed=7)


@pytest.fixture
def save(tmp_path):
    def save(name, **meta):
        write_checkpoint(tmp_path / name, dict(weight=torch.ones(9)), meta)
        return str(tmp_path / name)

    return save


@pytest.fixture
def cfg(tmp_path):
    return Config(dict(work_dir=str(tmp_path), resume=True))


def test_a_new_run_is_left_alone(cfg, save):
    save('epoch_1.pth', **META)
    cfg.resume = False
    before = cfg.to_dict()
    assert settle_resume(cfg) == []
    prepare_resume(cfg)
    assert cfg.to_dict() == before


def test_the_pointer_is_mended(cfg, save, tmp_path):
    whole = save('epoch_1.pth', **META)
    part = tmp_path / 'epoch_2.pth'
    part.write_bytes(b'half')
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(part))
    assert settle_resume(cfg) == [f'{part} is damaged and passed over']
    assert pointer.read_text() == str(part)  # other inputs are checked first
    prepare_resume(cfg)
    assert pointer.read_text() == whole
    assert cfg.resume


def test_a_good_pointer_is_not_touched(cfg, save, tmp_path):
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(save('epoch_1.pth', **META))
    before = pointer.stat()
    prepare_resume(cfg)
    assert pointer.stat() == before


@pytest.mark.parametrize('resume', [True, 'auto'])
def test_without_a_whole_checkpoint_the_run_begins_anew(cfg, tmp_path, resume):
    cfg.resume = resume
    part = tmp_path / 'epoch_1.pth'
    part.write_bytes(b'half')
    (tmp_path / 'last_checkpoint').write_text(str(part))
    assert settle_resume(cfg) == [
        f'{part} is damaged and passed over',
        f'no checkpoint to resume in {tmp_path}: the run begins anew',
    ]
    assert cfg.resume is False


def test_a_run_that_has_not_begun_takes_the_weights_that_its_config_names(cfg, tmp_path):
    cfg.resume, cfg.load_from = 'auto', 'grouped.pth'
    part = tmp_path / 'epoch_1.pth'
    part.write_bytes(b'half')
    assert settle_resume(cfg) == [
        f'{part} is damaged and passed over',
        f'no checkpoint to resume in {tmp_path}: the run begins with grouped.pth',
    ]
    assert (cfg.resume, cfg.load_from) == (False, 'grouped.pth')


def test_a_run_that_has_begun_goes_on(cfg, save):
    save('epoch_1.pth', **META)
    cfg.resume, cfg.load_from = 'auto', 'grouped.pth'
    assert settle_resume(cfg) == []
    assert (cfg.resume, cfg.load_from) == (True, None)


def test_a_file_that_is_named_is_resumed_whatever_the_work_dir_holds(cfg, save):
    save('epoch_1.pth', **META)
    cfg.load_from = 'other.pth'
    assert settle_resume(cfg) == []
    assert (cfg.resume, cfg.load_from) == (True, 'other.pth')


@pytest.mark.parametrize('randomness', [None, dict(seed=None), dict(deterministic=True)])
def test_a_seed_that_was_drawn_is_taken_over(cfg, save, randomness):
    save('epoch_1.pth', **META)
    if randomness is not None:
        cfg.randomness = randomness
    prepare_resume(cfg)
    assert cfg.randomness == dict(randomness or {}, seed=7)


def test_a_seed_of_the_config_s_own_stays(cfg, save):
    cfg.randomness = dict(seed=0)
    cfg.load_from = save('other.pth', **META)
    prepare_resume(cfg)
    assert cfg.randomness == dict(seed=0)


def test_a_file_of_weights_alone_is_named(cfg, save):
    cfg.load_from = save('published.pth', dataset_meta={})
    with pytest.raises(ValueError, match=r'published.pth holds no epoch and iteration to resume'):
        prepare_resume(cfg)


def test_files_that_are_downloaded_first_are_left_alone(cfg):
    cfg.load_from = 'https://host/file.pth'
    prepare_resume(cfg)
    assert cfg.to_dict() == dict(work_dir=cfg.work_dir, resume=True, load_from=cfg.load_from)
